"""How far raw pixels get: nearest support image by Euclidean distance, on the test tasks of every run.

uv run python scripts/pixel_baseline.py data=glyphs
uv run python scripts/pixel_baseline.py data=omniglot data.k_shot=5
"""

from __future__ import annotations

import sys

import torch

from metarun.core.scores import estimate
from metarun.run.device import choose_device
from metarun.settings.build import build_source
from metarun.settings.compose import compose
from metarun.settings.resolve import resolve


def main(overrides: list[str]) -> None:
    """Print the accuracy with its 95 % interval over `run.test_tasks` tasks."""
    config = compose(overrides)
    source = build_source(resolve(config), choose_device(config.device))
    batch = next(source.episodes("test", 0, config.run.test_tasks))
    distance = torch.cdist(batch.query.x.flatten(2), batch.support.x.flatten(2))  # [B, M, S]
    predicted = batch.support.y.gather(1, distance.argmin(-1))
    accuracy = estimate((predicted == batch.query.y).float().mean(1).cpu().numpy(), share=True)
    print(f"{100 * accuracy.mean:.2f} ± {100 * accuracy.ci95:.2f} %  ({accuracy.n_tasks} tasks)")


if __name__ == "__main__":
    main(sys.argv[1:])
