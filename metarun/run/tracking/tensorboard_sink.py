"""TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarun.core.command import quote
from metarun.run.tracking.sink import RunInfo


class TensorBoardSink:
    """`logger=tensorboard`: event files in the run's folder `tensorboard`, with tags `split/metric`.

    When the run ends, its settings and test scores are written for the page HPARAMS, by which runs are sorted.
    """

    shows = True
    id: str | None = None

    def __init__(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A killed process had lines that it had not written yet: so TensorBoard forgets all, and is told again.
        again = 0 if any(info.folder.glob("tensorboard/events*")) else None
        self.writer = SummaryWriter(str(info.folder / "tensorboard"), purge_step=again)
        self.settings = {key: _as_plain(value) for key, value in info.config.items()}
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
        from torch.utils.tensorboard.summary import hparams

        scores = {f"test/{name}": score["mean"] for name, score in (results.get("test") or {}).items()}
        if scores:
            summaries = hparams(self.settings, scores)  # type: ignore[no-untyped-call]
            for summary in summaries:  # `add_hparams` would make a run of its own of them
                self.writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        self.writer.close()


def _as_plain(value: Any) -> bool | int | float | str:
    """Return a setting as TensorBoard takes it: it knows numbers, words and truth values."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
