"""What a checkpoint keeps of the data it was trained on, so that it can be tested where that data is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarun.core import objectives
from metarun.core.tasks import SourceInfo

OBJECTIVES = {one.__name__: one for one in (objectives.classification, objectives.regression)}
"""Those that a checkpoint can name."""

FACTS = (
    "input_shape", "n_way", "outputs", "split_sha256", "train_classes", "normalisation", "support_shape",
    "support_scale", "domains",
)  # fmt: skip
"""Of SourceInfo, in plain values."""


NUMBERED = ", numbered by "
"""Between the world of some classes and the source whose files number them: names of the two cannot be compared."""


@dataclass(frozen=True)
class KnownSource:
    """A source of which no tasks are drawn.

    Attributes:
        info: of the source.
        classes: the names of the classes of each split, with that of their world; empty where tasks are functions.
        look: mean and std that all its images are normalised with; None if there is none.
    """

    info: SourceInfo
    classes: Mapping[str, Sequence[str]]
    look: tuple[Sequence[float], Sequence[float]] | None


def know_source(source: Any) -> KnownSource:
    """Return what is known of a source that is open."""
    members = getattr(source, "members", {"": source}).values()
    own = [getattr(member, "classes", {}) for member in members]
    classes = {split: sorted(set().union(*(one.get(split, ()) for one in own))) for split in ("train", "val", "test")}
    look = getattr(source, "look", None)
    return KnownSource(source.info, classes, (list(look.mean), list(look.std)) if look else None)


def find_untold(ones: Iterable[str], others: Iterable[str]) -> list[str]:
    """Find the worlds of which it is not known whether two sets of classes share any, as only one of them has names.

    Args:
        ones, others: names of classes, with that of their world before them.
    """
    worlds = [{name.split("/", 1)[0] for name in names} for names in (ones, others)]
    pairs = ((one, other) for one in worlds[0] for other in worlds[1] if one != other)
    return sorted({base for one, other in pairs if (base := _find_base(one)) == _find_base(other)})


def _find_base(world: str) -> str:
    return world.partition(NUMBERED)[0]


def describe_source(known: KnownSource) -> dict[str, Any] | None:
    """Describe the source in plain values; None if these do not say it all, as for functions from a known prior."""
    objective = getattr(known.info.objective, "__name__", "")
    if known.info.prior is not None or OBJECTIVES.get(objective) is not known.info.objective:
        return None
    facts = {name: getattr(known.info, name) for name in FACTS}
    return {"info": facts, "objective": objective, "classes": dict(known.classes), "look": known.look}


def recall_source(described: Mapping[str, Any]) -> KnownSource:
    """Undo `describe_source`."""
    info = SourceInfo(objective=OBJECTIVES[described["objective"]], facts={}, **described["info"])
    return KnownSource(info, described["classes"], described["look"])
