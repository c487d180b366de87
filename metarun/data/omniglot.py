from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from metarun.core.ranges import FilePath, PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.augment import Look
from metarun.data.counts import warn_if_not_whole
from metarun.data.files.decode import Channels, Interpolation, Scale
from metarun.data.files.download import fetch_once
from metarun.data.files.find import find_alike, list_images, make_stamp
from metarun.data.files.image_file import ImageFile
from metarun.data.files.known import describe_places
from metarun.data.files.load import load_images
from metarun.data.files.split_file import read_split_file
from metarun.data.files.splits import draw_split, find_alphabet, read_split
from metarun.data.images import ImageTasks, Labels, Rotation
from metarun.data.places.omniglot import PARTS, find_files

KNOWN_SPLITS = ("vinyals", "lake")
RANDOM = (1100 / 1623, 100 / 1623, 423 / 1623)
"""Shares of the characters in the split `random`."""


class Omniglot(ImageTasks):
    """Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each.

    Args:
        plan, device: from the runner.
        root: the folder that holds images_background and images_evaluation, as folders or zip files, or holds a folder
            `omniglot` with them; torchvision downloads them if they are missing.
        cache: folder of the decoded images.
        split: `vinyals` has 1028/172/423 characters (Vinyals et al. 2016, the lists of Snell et al. 2017); `lake`
            trains on background and tests on evaluation (Lake et al. 2015), and five background alphabets validate;
            `random` draws 1100/100/423, as MAML's code does, which with `trainval` are the 1,200/423 of many papers. Or
            a file of lines `train ALPHABET/CHARACTER`, or a folder of lists, see metarun/data/files/split_file.py.
        within_alphabet: take all characters of a task from one alphabet, which is harder (Lake et al. 2015 test 20 ways
            in this way). Alphabets with fewer than n_way characters in a split are left out.
        rotation: see ImageTasks; the papers with `vinyals` use `class`.
        image_size: side in pixels that the 105x105 originals are scaled to.
        channels: 1, or 3 equal channels for a network that needs them.
        interpolation: Pillow's filter for that.
        invert: make ink 1 and paper 0; in the originals it is the other way round.
        mean, std: see metarun/data/augment.py.
        trainval, labels: see ImageTasks.
    Reference: Lake, Salakhutdinov, Tenenbaum. Human-level concept learning. Science 2015.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        root: FilePath,
        cache: FilePath,
        split: FilePath,
        within_alphabet: bool,
        rotation: Rotation,
        image_size: PositiveInt,
        channels: Channels,
        interpolation: Interpolation,
        invert: bool,
        mean: Sequence[float],
        std: Sequence[float],
        trainval: bool,
        labels: Labels = "shuffled",
    ) -> None:
        own = None if split in (*KNOWN_SPLITS, "random") else Path(split).expanduser()
        if own is not None and not own.exists():
            raise ValueError(f"data.split={split} is not one of {', '.join(KNOWN_SPLITS)}, random, and no file")
        parts = find_files(root) or _download(Path(root).expanduser())
        scale = Scale(image_size, interpolation, channels, invert=invert)
        data = load_images(Path(cache), "omniglot", make_stamp(parts), lambda: _by_character(parts), scale)
        superclass_of = find_alphabet if within_alphabet else None
        if own is not None:
            names = read_split_file(own)
        else:
            names = draw_split(data.names, RANDOM, 0) if split == "random" else read_split(f"omniglot_{split}")
        super().__init__(data, names, plan, rotation, device, Look(mean, std), trainval, superclass_of, labels)
        warn_if_not_whole("omniglot", self.info.facts["images"], 32_460, of_class=20)


def _download(root: Path) -> list[Path]:
    instead = (
        f"Put {PARTS[0]}.zip and {PARTS[1]}.zip into {root / 'omniglot'}, or set paths.data=FOLDER (or METARUN_DATA) "
        "to the folder that holds them"
    )
    makes = [name for part in PARTS for name in (f"{part}.zip", part)]
    understood = f"{' and '.join(PARTS)}, as folders, zip or tar files"
    held = describe_places(find_alike(root, "omniglot", "omniglot-py", "omniglot_dataset"), understood)
    fetch_once(root / "omniglot-py", "Omniglot", lambda: _fetch(root), instead, makes, held)
    return [root / "omniglot-py" / f"{part}.zip" for part in PARTS]


def _fetch(root: Path) -> None:
    from torchvision.datasets import Omniglot as Download

    for background in (True, False):
        Download(str(root), background=background, download=True)


def _by_character(parts: list[Path]) -> Mapping[str, list[ImageFile]]:
    """List the drawings of each character; characters are named ALPHABET/CHARACTER."""
    characters: dict[str, list[ImageFile]] = defaultdict(list)
    for part in parts:
        for file in list_images(part):
            characters["/".join(file.path.split("/")[-3:-1])].append(file)
    return characters
