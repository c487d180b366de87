"""Settings that are allowed and doubtful: each gets a warning."""

from __future__ import annotations

import logging
import math
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun.settings.ranges import find_parameters

log = logging.getLogger(__name__)


def advise(config: DictConfig) -> None:
    """Warn of each setting of `config` that has no effect, or makes numbers mean less than they seem to."""

    def value(key: str) -> Any:
        return OmegaConf.select(config, key)

    if value("algo.engine") == "learn2learn" and value("algo.task_chunk") not in (None, 0, 1):
        log.warning("algo.task_chunk has no effect with algo.engine=learn2learn, which loops over tasks")
    normalised = {*find_parameters(value("backbone._target_")), *find_parameters(value("algo._target_"))}
    if value("bn") in ("support", "running") and "bn" not in normalised:
        log.warning("bn=%s has no effect: nothing in the chosen algo and backbone has batch normalisation", value("bn"))
    if (value("run.val_every") or 0) > (value("run.steps") or math.inf):
        log.warning("run.val_every is above run.steps: the run is validated once, at its end")
    if value("data.query") == "dirichlet" and "balanced" in get_object(value("algo._target_")).answers:
        name = str(value("algo._target_")).rpartition(".")[2]
        log.warning("data.query=dirichlet: %s assumes as many queries of each class, and there are not", name)
    if value("data.trainval"):
        log.warning("data.trainval=true: classes of val are trained on, so the best step by validation means little")
    if (value("run.test_tasks") or math.inf) < 600:
        log.warning("run.test_tasks=%s is few for a number to believe; papers use 600 or more", value("run.test_tasks"))
