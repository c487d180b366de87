"""Which folders Hydra makes for a run: they are taken away again where the run is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class NewFolder(Callback):
    """Hydra's callback that notes what exists before Hydra makes the folder of a run."""

    top: ClassVar[Path | None] = None
    """The topmost folder that Hydra made for the run; None if its folder was there before."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.run.dir).absolute()
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        NewFolder.top = missing[-1] if missing else None
