from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Look
from metarun.data.files.decode import Interpolation, Scale, decoded
from metarun.data.files.download import once
from metarun.data.files.find import ImageFile, image_files, stamp
from metarun.data.files.splits import read_split
from metarun.data.images import ImageTasks, Rotation

PARTS = ("images_background", "images_evaluation")


class Omniglot(ImageTasks):
    """Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each.

    Args:
        plan, device: from the runner.
        root: where images_background and images_evaluation lie, as folders or zip files, in it or in its folder
            `omniglot`; torchvision downloads them there if they do not.
        cache: folder of the decoded images.
        split: `vinyals`, 1028/172/423 characters (Vinyals et al. 2016, the lists of Snell et al. 2017), or `lake`:
            background trains, evaluation tests (Lake et al. 2015), and five background alphabets validate.
        within_alphabet: all characters of a task are of one alphabet, which is harder (Lake et al. 2015 test 20 ways
            so); alphabets with fewer than n_way characters in a split are left out.
        rotation: see ImageTasks; the papers with `vinyals` use `class`.
        image_size: side in pixels that the 105x105 originals are scaled to.
        channels: 1, or 3 equal ones for a network that wants them.
        interpolation: Pillow's filter for that.
        invert: ink is 1 and paper 0; the originals are the other way round.
        mean, std: see metarun/data/augment.py.
        trainval: see ImageTasks.
    Reference: Lake, Salakhutdinov, Tenenbaum. Human-level concept learning. Science 2015.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        root: str,
        cache: str,
        split: str,
        within_alphabet: bool,
        rotation: Rotation,
        image_size: PositiveInt,
        channels: int,
        interpolation: Interpolation,
        invert: bool,
        mean: Sequence[float],
        std: Sequence[float],
        trainval: bool,
    ) -> None:
        if split not in ("vinyals", "lake"):
            raise ValueError(f"data.split={split} is not one of vinyals, lake")
        parts = self.found(root) or _downloaded(Path(root).expanduser())
        scale = Scale(image_size, interpolation, channels, invert=invert)
        data = decoded(Path(cache), "omniglot", stamp(parts), lambda: _by_character(parts), scale)
        group_of = _alphabet if within_alphabet else None
        names = read_split(f"omniglot_{split}")
        super().__init__(data, names, plan, rotation, device, Look(mean, std), trainval, group_of)

    @staticmethod
    def found(root: str) -> list[Path]:
        """The two parts, as folders or zip files; of a whole download the zip files, whose checksums were compared."""
        place = Path(root).expanduser()
        zips = [place / "omniglot-py" / f"{part}.zip" for part in PARTS]
        if (place / "omniglot-py" / "complete").exists():
            return zips
        for folder in (place / "omniglot", place):
            parts = [next((p for p in (folder / part, folder / f"{part}.zip") if p.exists()), None) for part in PARTS]
            if all(parts):
                return [part for part in parts if part is not None]
        return []


def _alphabet(character: str) -> str:
    return character.split("/")[0]


def _downloaded(root: Path) -> list[Path]:
    instead = (
        f"Put {PARTS[0]}.zip and {PARTS[1]}.zip into {root / 'omniglot'}, or set paths.data=FOLDER (or METARUN_DATA) "
        "to the folder that holds them"
    )
    once(root / "omniglot-py", "Omniglot", lambda: _download(root), instead)
    return [root / "omniglot-py" / f"{part}.zip" for part in PARTS]


def _download(root: Path) -> None:
    from torchvision.datasets import Omniglot as Download

    for background in (True, False):
        Download(str(root), background=background, download=True)


def _by_character(parts: list[Path]) -> Mapping[str, list[ImageFile]]:
    """The drawings of each character, named ALPHABET/CHARACTER."""
    characters: dict[str, list[ImageFile]] = defaultdict(list)
    for part in parts:
        for file in image_files(part):
            characters["/".join(file.path.split("/")[-3:-1])].append(file)
    return characters
