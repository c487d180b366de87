"""TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metarun.run.tracking.sink import RunInfo


class TensorBoardSink:
    """`logger=tensorboard`: event files in the run's folder `tensorboard`, with tags `split/metric`."""

    shows = True
    id: str | None = None

    def __init__(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(info.folder / "tensorboard"))
        self.writer.add_text("config", f"```\n{json.dumps(dict(info.config), indent=1)}\n```")
        self.notes = [f"tensorboard --logdir {info.folder / 'tensorboard'}"]

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{split}/{name}", value, step)

    def show(self, name: str, file: Path) -> None:
        import numpy as np
        from PIL import Image

        if file.suffix == ".png":
            self.writer.add_image(name, np.asarray(Image.open(file).convert("RGB")), dataformats="HWC")

    def finish(self, results: dict[str, Any], exit_code: int) -> None:
        self.writer.close()
