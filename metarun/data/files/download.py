"""Downloads: one process at a time, checked by checksum, and used only when complete."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)


def fetch_once(folder: Path, name: str, fetch: Callable[[], object], instead: str) -> None:
    """Let `fetch` download the set `name` to `folder`, unless an earlier download there was completed.

    Raises: ValueError if the download fails; its text ends with `instead`, which says what to do.
    """
    done = folder / "complete"
    if done.exists():
        return
    if not folder.parent.parent.exists():
        raise ValueError(
            f"paths.data={folder.parent} is in a folder that does not exist; set paths.data or METARUN_DATA"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not done.exists():
                log.info("downloading %s to %s", name, folder)
                fetch()
                done.touch()
    except (OSError, RuntimeError, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"there is no {name} in {folder.parent}: the download failed ({reason}). {instead}") from error


def download_archive(url: str, md5: str, folder: Path) -> None:
    """Download a tar archive to `folder` and unpack it there.

    Raises: RuntimeError if its MD5 sum is wrong; tarfile.TarError if a member would lie outside the folder.
    """
    from torchvision.datasets.utils import download_url

    download_url(url, str(folder), md5=md5)
    aside = folder / ".unpacking"  # hidden, so that nobody takes its images for the data set
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(folder / url.rsplit("/", 1)[-1]) as tar:
        tar.extractall(aside, filter="data")
    for item in aside.iterdir():
        os.replace(item, folder / item.name)
    aside.rmdir()
