"""Whether tasks can be drawn from a class split."""

from __future__ import annotations

from collections.abc import Mapping

from metarun.core.tasks import EpisodePlan


def checked(
    split: Mapping[str, list[str]],
    sizes: Mapping[str, int],
    plan: EpisodePlan,
    turns: Mapping[str, int] | None = None,
    trainval: bool = False,
) -> dict[str, list[str]]:
    """The split that tasks are drawn from, train with the classes of val added if `trainval`.

    Args:
        sizes: images of each class there is.
        turns: how many classes rotation makes of one in each split; None: one.
    Raises: ValueError if splits share a class, or the plan asks for more classes or images than there are.
    """
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(set(split[one]) & set(split[other]))
        if shared:
            raise ValueError(f"splits {one} and {other} share {len(shared)} classes, {shared[0]} among them")
    missing = [name for labels in split.values() for name in labels if name not in sizes]
    if missing:
        raise ValueError(f"{len(missing)} classes of the split have no images, {missing[0]} among them")
    used = {**split, "train": [*split["train"], *(split["val"] if trainval else [])]}
    problems = []
    for name in plan.splits:
        key, shape = ("data.train", plan.train) if name == "train" else ("data", plan.test)
        have, need = (turns or {}).get(name, 1) * len(used[name]), shape.k_shot + shape.n_query
        if 0 < have < shape.n_way:
            problems.append(
                f"{key}.n_way={shape.n_way} needs {shape.n_way} classes; split '{name}' has {have}. "
                f"Set {key}.n_way={have} or less"
            )
        short = sorted((sizes[c], c) for c in used[name] if sizes[c] < need)
        if short:
            smallest, label = short[0]
            more = f", and {len(short) - 1} more have too few" if len(short) > 1 else ""
            problems.append(
                f"{key}.k_shot={shape.k_shot} and {key}.n_query={shape.n_query} need {need} images of a class; "
                f"'{label}' of split '{name}' has {smallest}{more}. "
                f"Set {key}.n_query={max(smallest - shape.k_shot, 1)} or less"
            )
    if problems:
        raise ValueError("\n".join(problems))
    return used
