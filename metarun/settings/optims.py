"""The outer optimizers that the settings describe: with rates by part, clipping, a warm-up and a schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metarun.core.errors import ConfigError, suggest
from metarun.run.team import Group
from metarun.settings.ranges import find_parameters
from metarun.settings.schema import BUILD_KEYS, Node, Settings

OF_PART = ("lr", "weight_decay")
"""What a part of a learner may have of its own."""


class Optims:
    """Makes the optimizers that a learner asks for by name: `outer` of the settings `optim`, others with what `optims`
    says of them in its place; each has its clipping, its warm-up and its schedule. On a GPU those that can update all
    weights by one kernel do.

    Args:
        make: returns a factory of what a node of settings describes, without the keys in its second argument.
        names: of the learner's weights, by which `optim.parts` goes.
    """

    def __init__(
        self,
        settings: Settings,
        group: Group,
        device: torch.device,
        make: Callable[..., Callable[..., Any]],
        names: Iterable[tuple[str, Tensor]],
    ) -> None:
        self.settings, self.group, self.device, self.make_factory = settings, group, device, make
        self.names = {id(weight): name for name, weight in names}
        self.schedules: list[LRScheduler] = []
        self.made: list[str] = []

    def __call__(self, parameters: Iterable[Any], name: str = "outer") -> Optimizer:
        node = {**self.settings.optim, **self.settings.optims.get(name, {})}
        fused = {"fused": True} if self.device.type == "cuda" and "fused" in find_parameters(node["_target_"]) else {}
        groups = self._split(parameters, dict(_list_parts(node.get("parts") or {})))
        optim: Optimizer = self.make_factory(fused | node, BUILD_KEYS["optim"])(groups)
        self.group.tie(optim)
        if fused:
            optim.register_step_pre_hook(_lay_as_weights)
        if node["clip_norm"] is not None:
            optim.register_step_pre_hook(partial(_clip, float(node["clip_norm"])))
        self.made.append(name)
        self.schedules.append(self.make_factory(node["schedule"])(optim))
        if steps := int(node.get("warmup", 0)):
            _warm_up(optim, self.schedules[-1], steps)
        return optim

    def _split(self, parameters: Iterable[Any], parts: Mapping[str, Node]) -> list[Any]:
        """Split parameters into a group for each part that has rates of its own, and one for the others.

        The longest of the names with which a weight's name begins counts.
        Raises: ConfigError if no weight has such a name, or a part has other settings.
        """
        listed = list(parameters)
        if not parts or not all(isinstance(one, Tensor) for one in listed):
            return listed
        known = sorted({".".join(name.split(".")[:n]) for name in self.names.values() for n in (1, 2, 3)})
        for part, own in parts.items():
            if not any(_is_of(name, part) for name in self.names.values()):
                raise ConfigError(f"optim.parts.{part}: no weights are called so{suggest(part, known)}")
            for key, value in own.items():
                if key not in OF_PART or not isinstance(value, int | float) or value < 0:
                    raise ConfigError(f"optim.parts.{part}.{key}={value}: it may be {' or '.join(OF_PART)}, 0 or more")
        groups: dict[str, list[Tensor]] = {}
        for weight in listed:
            of = [part for part in parts if _is_of(self.names.get(id(weight), ""), part)]
            groups.setdefault(max(of, key=len, default=""), []).append(weight)
        return [{"params": groups[part], **parts.get(part, {})} for part in sorted(groups)]


def is_held(optim: Node, part: str) -> bool:
    """Return whether the settings of an optimizer give a part of the learner, and all parts in it, the rate 0."""
    rates = {name: own.get("lr") for name, own in _list_parts(optim.get("parts") or {}) if _is_of(name, part)}
    return part in rates and all(rate == 0 for rate in rates.values())


def _list_parts(tree: Node, above: str = "") -> Iterator[tuple[str, Node]]:
    """List the parts that have settings, by dotted name: parts lie in parts as modules lie in modules."""
    for name, node in tree.items():
        if not isinstance(node, Mapping):
            raise ConfigError(f"optim.parts.{name}={node} is no part's settings, as +optim.parts.backbone.lr=0.0001")
        own = {key: value for key, value in node.items() if not isinstance(value, Mapping)}
        if own:
            yield f"{above}{name}", own
        yield from _list_parts({key: value for key, value in node.items() if key not in own}, f"{above}{name}.")


def _is_of(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _warm_up(optim: Optimizer, schedule: LRScheduler, steps: int) -> None:
    """Let the rates of the first steps rise in a straight line to those of the schedule, which counts them."""
    rates: list[Any] = []

    def lower(*_: Any) -> None:
        share = min(1.0, (schedule.last_epoch + 1) / steps)
        rates[:] = [group["lr"] for group in optim.param_groups]
        for group in optim.param_groups:
            group["lr"] = group["lr"] * share

    def restore(*_: Any) -> None:
        for group, rate in zip(optim.param_groups, rates, strict=True):
            group["lr"] = rate

    optim.register_step_pre_hook(lower)
    optim.register_step_post_hook(restore)


def _lay_as_weights(optim: Optimizer, args: Any, kwargs: Any) -> None:
    """Give each gradient the memory layout of its weight, which fused kernels require."""
    for weight in (weight for group in optim.param_groups for weight in group["params"]):
        if weight.grad is not None and weight.grad.stride() != weight.stride():
            weight.grad = torch.empty_like(weight).copy_(weight.grad)


def _clip(norm: float, optim: Optimizer, args: Any, kwargs: Any) -> None:
    clip_grad_norm_([p for group in optim.param_groups for p in group["params"]], norm)
