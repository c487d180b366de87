"""The experiment runner for meta-learning: trained models, and what authors of a learner, a source or a sink import.

`from metarun import Learner` and the like take their module in when they are first asked for: `import metarun` alone
imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Model": "metarun.app.model",
    "Learner": "metarun.algos.base.learner",
    "EpisodicLearner": "metarun.algos.base.episodic",
    "MetricLearner": "metarun.algos.base.metric",
    "Stage": "metarun.algos.base.stages",
    "Staged": "metarun.algos.base.stages",
    "ImageSource": "metarun.data.image_source",
    "TaskSource": "metarun.core.tasks",
    "TaskBatch": "metarun.core.tasks",
    "Batch": "metarun.core.tasks",
    "Examples": "metarun.core.tasks",
    "RunInfo": "metarun.run.tracking.sink",
    "Sink": "metarun.run.tracking.sink",
    "BatchNorm": "metarun.ops.norm",
    "call": "metarun.ops.functional",
    "within": "metarun.ops.functional",
    "gradient": "metarun.ops.functional",
    "with_support": "metarun.algos.base.network",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
