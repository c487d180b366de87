"""Downloads: one process at a time, checked by checksum, and used only when complete."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)


def fetch_once(
    folder: Path, name: str, fetch: Callable[[], object], instead: str, makes: Sequence[str] = (), held: str = ""
) -> None:
    """Let `fetch` download the set `name` to `folder`, unless an earlier download there was completed.

    Args:
        instead: says what to do if the download fails.
        makes: names of what `fetch` makes in `folder`; what is new of it is deleted after a failure.
        held: says what lies there already and is not understood; told before the download.
    Raises: ValueError if the download fails.
    """
    done = folder / "complete"
    if done.exists():
        return
    if not folder.parent.parent.exists():
        raise ValueError(
            f"paths.data={folder.parent} is in a folder that does not exist; set paths.data or METARUN_DATA"
        )
    made = [place for place in (folder, folder.parent) if not place.exists()]
    before = {path.name for path in folder.iterdir()} if folder.exists() else set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not done.exists():
                if held:
                    log.warning("%s", held.strip())
                log.info("downloading %s to %s", name, folder)
                fetch()
                done.touch()
    except (OSError, RuntimeError, tarfile.TarError) as error:
        _clean(folder, [one for one in (*makes, "lock") if one not in before], made)
        reason = " ".join(str(error).split())
        raise ValueError(
            f"there is no {name} in {folder.parent}: the download failed ({reason}). {held}{instead}"
        ) from error


def _clean(folder: Path, names: Sequence[str], made: Sequence[Path]) -> None:
    """Delete what a download that failed left in `folder`, and the folders that it made if they are empty then."""
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        with suppress(OSError):
            (folder / name).unlink()
    for place in made:
        with suppress(OSError):
            place.rmdir()


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
