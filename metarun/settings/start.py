"""The backbone of another run, as the start of this one: `backbone.weights=RUN`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metarun.core.dotted import leaves
from metarun.core.errors import ConfigError
from metarun.core.identity import LEFT_OUT, as_mapping, is_among, read_yaml
from metarun.core.known_source import find_untold
from metarun.core.run_folder import RunFolder
from metarun.core.whole import hash_file
from metarun.ops import norm
from metarun.run.folder import load_best

AVERAGES = (*norm.AVERAGES, "num_batches_tracked")
"""What BatchNorm keeps with bn=running alone, torch's layers too."""

FACT = "backbone.weights"
"""The field of results.json that says in words what a run starts from; `metarun compare` goes by it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The best checkpoint of another run, to take the backbone from.

    Attributes:
        folder: the run's, as an absolute path.
        state: its learner's state_dict.
        classes: the names of the classes of each of its splits; empty if the checkpoint does not say.
        step: the outer step of the checkpoint.
        sha256: of its file; None for weights that were in none.
    """

    folder: Path
    state: Mapping[str, Tensor]
    classes: Mapping[str, Sequence[str]]
    step: int | None = None
    sha256: str | None = None

    def load_into(self, backbone: nn.Module, node: Mapping[str, Any]) -> None:
        """Give `backbone`, which the settings `node` describe, the weights of the run's own.

        A learner keeps its backbone under a name of its own; it is found by the names and shapes of all its weights.
        Averages of BatchNorm are taken if both runs have them. MAML++, whose layers normalise for each inner step
        apart, has no such network.

        Raises: ConfigError if the run has no backbone of these weights.
        """
        wanted = {name: value for name, value in backbone.state_dict().items() if not name.endswith(AVERAGES)}
        prefix = self._find_prefix(wanted)
        if prefix is None:
            raise ConfigError(
                f"{FACT}={self.folder}: the network there is not this one{self._describe_difference(node)}; choose the "
                "same backbone and bn as that run"
            )
        inside = {name[len(prefix) :]: value for name, value in self.state.items() if name.startswith(prefix)}
        known = backbone.state_dict()
        taken = {name: value for name, value in inside.items() if name in known}
        if lacking := [name for name in known if name not in taken]:
            log.warning("%s has no averages of BatchNorm (bn=running): %s starts afresh", self.folder, lacking[0])
        backbone.load_state_dict(taken, strict=False)

    def describe(self, classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return facts for results.json: what the run starts from, in words that are the same for every seed.

        `classes` are those of the splits of the run that starts. A warning tells of those that it validates or tests
        on and that the other run was trained on.
        """
        trained = set(self.classes.get("train", ()))
        seen = sorted(trained & {name for split in ("val", "test") for name in classes.get(split, ())})
        if seen:
            log.warning("%s was trained on %d classes that this run takes for unseen ones", self.folder, len(seen))
        if untold := find_untold(trained, {name for split in ("val", "test") for name in classes.get(split, ())}):
            log.warning(
                "it is not known whether %s was trained on classes that this run takes for unseen ones: files of %s "
                "without names of classes were read",
                *(self.folder, untold[0]),
            )
        files = RunFolder(self.folder)
        results = files.read_results()
        unfinished = results.get("status") != "finished"
        if unfinished:
            log.warning(
                "%s is not finished: its network is taken as the best checkpoint has it so far, of step %s; to finish "
                "it: %s",
                *(self.folder, self.step, files.make_command("resume")),
            )
        kept = dict(leaves(read_yaml(files.settings)))
        settings = {key: value for key, value in kept.items() if not is_among(key, (*LEFT_OUT, "seed"))}
        settings[FACT] = results.get(FACT)  # a chain of runs, in words too
        key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:4]
        hydra = as_mapping(as_mapping(read_yaml(files.hydra).get("hydra")).get("runtime"))
        chosen = dict(as_mapping(hydra.get("choices"))) | results  # which a killed run has none of
        words = f"{chosen.get('algo')} on {chosen.get('data')} {key}{', not finished' if unfinished else ''}"
        told = {"seed": results.get("seed"), "best_step": self.step, "test": results.get("test")}
        return {FACT: words, "start": {"folder": str(self.folder), **told, "seen": seen, "sha256": self.sha256}}

    def _find_prefix(self, wanted: Mapping[str, Tensor]) -> str | None:
        """Find what stands before the names of `wanted` in the state; None if nothing does, or several do."""
        first = next(iter(wanted), "")
        found = {name[: -len(first)] for name in self.state if name == first or (first and name.endswith(f".{first}"))}
        fit = [
            prefix
            for prefix in found
            if all(
                (there := self.state.get(prefix + name)) is not None and there.shape == value.shape
                for name, value in wanted.items()
            )
            and not self._has_more(prefix, wanted)
        ]
        return fit[0] if len(fit) == 1 else None

    def _has_more(self, prefix: str, wanted: Mapping[str, Tensor]) -> bool:
        """Return whether the part under `prefix` has weights that are not wanted; a learner's whole state may."""
        inside = {name[len(prefix) :] for name in self.state if name.startswith(prefix)}
        return bool(prefix) and any(name not in wanted and not name.endswith(AVERAGES) for name in inside)

    def _describe_difference(self, node: Mapping[str, Any]) -> str:
        theirs = read_yaml(RunFolder(self.folder).settings).get("backbone")
        theirs = theirs if isinstance(theirs, Mapping) else {}
        apart = [
            f"{key}={theirs.get(key)}, not {node.get(key)}"
            for key in sorted({*theirs, *node} - {"weights"})
            if theirs.get(key) != node.get(key) and "${" not in str(theirs.get(key))
        ]
        return f" (there backbone.{'; backbone.'.join(apart)})" if apart else ""


def open_start(weights: str | None) -> Start | None:
    """Open the run whose folder `weights` is; None if it is no run's folder.

    Raises: ConfigError if the run has no best checkpoint, or it is damaged.
    """
    if weights is None or not RunFolder(folder := Path(weights).expanduser()).has_settings():
        return None
    if not RunFolder(folder).best.is_file():
        raise ConfigError(
            f"{FACT}={weights}: that run has no checkpoint yet: {RunFolder(folder).make_command('resume')}"
        )
    best = load_best(RunFolder(folder))
    known = best.get("source") or {}
    classes, path = known.get("classes", {}), RunFolder(folder).best
    return Start(folder.resolve(), best["learner"], classes, best.get("step"), hash_file(path))


def check_start(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError if a run that is begun anew, with the facts `now`, has other first weights than `then`."""
    before, after = ((facts.get("start") or {}) for facts in (then, now))
    if before.get("sha256") and before["sha256"] != after.get("sha256"):
        raise ConfigError(f"the run began with weights of {before['folder']}, and those there are others now")
