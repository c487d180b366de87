from __future__ import annotations

from pathlib import Path
from typing import Unpack

import numpy as np
import torch

from metarun.core.episodes import Floats
from metarun.core.ranges import FilePath
from metarun.core.tasks import EpisodePlan
from metarun.data.counts import warn_if_not_whole
from metarun.data.files.decode import Fit, Scale
from metarun.data.files.download import download_archive, fetch_once
from metarun.data.files.find import find_alike, make_stamp
from metarun.data.files.known import describe_places, read_set
from metarun.data.files.load import load_images
from metarun.data.files.splits import read_split
from metarun.data.photos import PhotoSettings, PhotoTasks
from metarun.data.places.cub import NAMES, find_files

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
ATTRIBUTES = "attributes/class_attribute_labels_continuous.txt"
MD5 = "97eceeb196236b17998738112f37df78"


class CUB(PhotoTasks):
    """Caltech-UCSD Birds 200-2011: 11,788 photos of 200 species of birds, split 100/50/50.

    The split is the one of Chen et al.: every second species in order trains, and the others validate and test in
    turn. Images are whole photos, not cut to the bounding boxes.

    Args:
        plan, device: from the runner.
        root: the folder that holds `cub` or `CUB_200_2011`, a folder or zip file with a folder for each species; CUB is
            downloaded if there is neither.
        fit: `crop` cuts out the middle square of a photo, `stretch` deforms the photo.
        photos: see PhotoSettings.
    Reference: Wah et al. The Caltech-UCSD Birds-200-2011 Dataset. 2011. Split: Chen et al. A Closer Look at Few-shot
        Classification. ICLR 2019. arXiv:1904.04232.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        root: FilePath,
        fit: Fit,
        **photos: Unpack[PhotoSettings],
    ) -> None:
        split, scale = read_split("cub"), Scale(photos["image_size"], photos["interpolation"], fit=fit)
        found = find_files(root) or _download(Path(root).expanduser())
        cache = Path(photos["cache"])
        data = load_images(cache, "cub", make_stamp(found), lambda: read_set(found, split, _find_species), scale)
        super().__init__(data, split, plan, device, **photos)
        self.root = Path(root).expanduser()
        warn_if_not_whole("cub", self.info.facts["images"], 11_788)

    def describe_classes(self) -> dict[str, Floats]:
        """Return the 312 attributes of each species, in per cent of the people who saw them.

        Raises: ValueError if the files classes.txt and attributes/class_attribute_labels_continuous.txt are not there,
            or do not tell the same species.
        """
        known = (self.root / name for name in ("CUB_200_2011", "cub", "cub/CUB_200_2011"))
        folder = next((place for place in known if (place / ATTRIBUTES).is_file()), None)
        if folder is None:
            raise ValueError(f"there is no CUB_200_2011/{ATTRIBUTES} in {self.root}")
        try:
            species = [line.split()[1] for line in (folder / "classes.txt").read_text().splitlines() if line.strip()]
            return dict(zip(species, np.loadtxt(folder / ATTRIBUTES, ndmin=2), strict=True))
        except (OSError, ValueError, IndexError) as error:
            raise ValueError(
                f"the attributes of the species in {folder} cannot be read ({error}): classes.txt is to have a line "
                f"NUMBER SPECIES for each, and {ATTRIBUTES} a line of numbers"
            ) from error


def _download(root: Path) -> list[Path]:
    folder = root / "cub"
    instead = f"Put CUB_200_2011.tgz into {folder}, or set paths.data=FOLDER (or METARUN_DATA)"
    makes = ("CUB_200_2011.tgz", "CUB_200_2011", ".unpacking", "attributes.txt")
    held = describe_places(find_alike(root, *NAMES))
    fetch_once(folder, "CUB-200-2011", lambda: download_archive(URL, MD5, folder), instead, makes, held)
    return [folder / "CUB_200_2011" / "images"]


def _find_species(path: str) -> str | None:
    """Find the species of a photo; the official set has drawings of the birds' outlines besides."""
    return None if "segmentations/" in path or "/" not in path else path.split("/")[-2]
