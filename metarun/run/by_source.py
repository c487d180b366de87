"""The scores of a test on several sources as one, source by source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarun.core.scores import estimate
from metarun.core.words import is_percent


def estimate_by_source(source: Any, scores: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, Any]:
    """Return `by_source` for results: the estimates of each of the sources whose tasks come in turn.

    It is empty for a source that has no attribute `turns`, their names in the order of the tasks, or too few tasks.
    """
    names = getattr(source, "turns", ())
    tasks = len(next(iter(scores.values())))
    if len(names) < 2 or tasks < 2 * len(names):
        return {}
    found = {}
    for first, name in enumerate(names):
        own = {score: values[first :: len(names)] for score, values in scores.items()}
        found[name] = {score: estimate(values, is_percent(score)).as_json() for score, values in own.items()}
    return {"by_source": found}
