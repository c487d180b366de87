"""Weights of a run in another algorithm's hands: as MAML's network with its body frozen, or with another head."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from metarun.algos.base.learner import Learner
from metarun.core.errors import ConfigError
from metarun.ops import norm

log = logging.getLogger(__name__)


def fit_weights(learner: Learner, state: Mapping[str, Tensor], algo: str, trained: str) -> None:
    """Load into `learner`, which is algo=`algo`, the weights `state` of a run of algo=`trained`.

    A backbone counts as the same one wherever it stands in a learner. Weights that only training uses stay as they are.

    Raises: ConfigError if a weight was not trained, or in another shape.
    """
    known = {_find_role(name): value for name, value in state.items()}
    wanted = learner.state_dict()
    used = {name: known[role] for name in wanted if (role := _find_role(name)) in known}
    lacking = [name for name in wanted if name not in used and not name.startswith(learner.only_trained)]
    lacking += [name for name, value in used.items() if value.shape != wanted[name].shape]
    if lacking:
        raise ConfigError(
            f"algo={algo} has weights that {trained} did not train: {_join_some(lacking)}; a test can change how "
            "weights are used, not what was learned"
        )
    learner.load_state_dict({**wanted, **used})
    roles = {_find_role(name) for name in used}
    if left := [name for name in state if _find_role(name) not in roles and not name.endswith(norm.AVERAGES)]:
        log.info("algo=%s has no use for %s, which %s trained", algo, _join_some(left), trained)


def _find_role(name: str) -> str:
    """Return a weight's name from `backbone.` on, or the whole name."""
    before, middle, after = name.partition("backbone.")
    return middle + after if middle else before


def _join_some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
