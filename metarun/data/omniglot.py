from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from metarun.data.cache import cached
from metarun.data.images import ImageClasses, ImageTasks
from metarun.data.splits import read_split
from metarun.types import EpisodePlan

PARTS = ("images_background", "images_evaluation")
FILTERS = {f.name.lower(): f for f in Image.Resampling}

log = logging.getLogger(__name__)


class Omniglot(ImageTasks):
    """Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each.

    Args:
        plan, device: from the runner.
        root: where images_background and images_evaluation lie, as folders or zip files, in it or in its folder
            `omniglot`; torchvision downloads them there if they do not.
        cache: folder of the decoded images.
        split: `vinyals`, 1028/172/423 characters (Vinyals et al. 2016, the lists of Snell et al. 2017), or `lake`:
            background trains, evaluation tests (Lake et al. 2015), and five background alphabets validate.
        rotation: see ImageTasks; the papers with `vinyals` use `class`.
        image_size: side in pixels that the 105x105 originals are scaled to.
        interpolation: Pillow's filter for that.
        invert: ink is 1 and paper 0; the originals are the other way round.
    Reference: Lake, Salakhutdinov, Tenenbaum. Human-level concept learning. Science 2015.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        root: str,
        cache: str,
        split: str,
        rotation: str,
        image_size: int,
        interpolation: str,
        invert: bool,
    ) -> None:
        if split not in ("vinyals", "lake"):
            raise ValueError(f"data.split={split} is not one of vinyals, lake")
        if interpolation not in FILTERS:
            raise ValueError(f"data.interpolation={interpolation} is not one of {', '.join(FILTERS)}")
        parts = _find(Path(root).expanduser())
        stamp = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in parts]
        key = hashlib.sha256(repr((1, stamp, image_size, interpolation, invert)).encode()).hexdigest()
        data = cached(
            Path(cache).expanduser(), "omniglot", key, lambda: _read(parts, image_size, interpolation, invert)
        )
        super().__init__(data, read_split(f"omniglot_{split}"), plan, rotation, device)


def _find(root: Path) -> list[Path]:
    """The two parts, as a folder or a zip; downloaded if they are nowhere under `root`.

    Of a download the zip files are used, whose checksums torchvision compared, and only if it came to its end.
    """
    downloaded = root / "omniglot-py"
    zips = [downloaded / f"{part}.zip" for part in PARTS]
    if (downloaded / "complete").exists():
        return zips
    for folder in (root / "omniglot", root):
        found = [next((p for p in (folder / part, folder / f"{part}.zip") if p.exists()), None) for part in PARTS]
        if all(found):
            return [part for part in found if part is not None]
    if not root.parent.exists():
        raise ValueError(f"data.root={root} is in a folder that does not exist; set paths.data or METARUN_DATA")
    log.info("downloading Omniglot to %s", root)
    from torchvision.datasets import Omniglot as Download

    try:
        for background in (True, False):
            Download(str(root), background=background, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"no Omniglot in {root} and the download failed ({error}). Put {PARTS[0]}.zip and {PARTS[1]}.zip into "
            f"{root / 'omniglot'}, or set paths.data=FOLDER (or METARUN_DATA) to the folder that holds them"
        ) from error
    (downloaded / "complete").touch()
    return zips


def _read(parts: list[Path], size: int, interpolation: str, invert: bool) -> ImageClasses:
    """Every image of the parts, [32460, 1, size, size], character by character in order of name."""
    log.info("reading Omniglot from %s, once", parts[0].parent)
    readers: dict[str, dict[str, Callable[[], bytes]]] = defaultdict(dict)
    for part in parts:
        for path, read in _files(part):
            readers["/".join(path.split("/")[-3:-1])][path.split("/")[-1]] = read

    def pixels(read: Callable[[], bytes]) -> NDArray[np.uint8]:
        image = Image.open(io.BytesIO(read())).convert("L")
        image = image.resize((size, size), FILTERS[interpolation])
        return np.asarray(ImageOps.invert(image) if invert else image)

    names = sorted(readers)
    ordered = [readers[name][file] for name in names for file in sorted(readers[name])]
    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(pixels, ordered, chunksize=256)))
    starts = np.cumsum([0, *(len(readers[name]) for name in names)], dtype=np.int64)
    return ImageClasses(torch.from_numpy(images)[:, None], starts, names)


def _files(part: Path) -> list[tuple[str, Callable[[], bytes]]]:
    """Path and reader of each PNG of a folder or zip."""
    if part.is_dir():
        return [(path.as_posix(), path.read_bytes) for path in part.rglob("*.png")]
    archive = zipfile.ZipFile(part)
    names = [name for name in archive.namelist() if name.endswith(".png") and "__MACOSX" not in name]
    return [(name, lambda name=name: archive.read(name)) for name in names]  # type: ignore[misc]
