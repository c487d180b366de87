"""TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarun.core.command import quote
from metarun.run.tracking.sink import RunInfo


class TensorBoardSink:
    """`logger=tensorboard`: event files in the run's folder `tensorboard`, with tags `split/metric`."""

    shows = True
    id: str | None = None

    def __init__(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard forgets all that an earlier process told, for what that had not written yet is lost.
        again = 0 if any(info.folder.glob("tensorboard/events*")) else None
        self.writer = SummaryWriter(str(info.folder / "tensorboard"), purge_step=again)
        info.replay(self.log)
        self.writer.add_text("config", f"```\n{json.dumps(dict(info.config), indent=1)}\n```")
        self.notes = [f"tensorboard --logdir {quote(info.folder / 'tensorboard')}"]

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{split}/{name}", value, step)

    def show(self, name: str, file: Path) -> None:
        import numpy as np
        from PIL import Image

        if file.suffix == ".png":
            self.writer.add_image(name, np.asarray(Image.open(file).convert("RGB")), dataformats="HWC")

    def finish(self, results: Mapping[str, Any], exit_code: int) -> None:
        self.writer.close()
