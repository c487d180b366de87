"""Numbers that every method gives today, kept in tests/data/snapshot.json, and what differs from them.

python scripts/snapshot.py                   compare all cases with what is kept; ends with 1 where one differs
python scripts/snapshot.py maml optim=       those whose name has one of these words in it
python scripts/snapshot.py --write           keep what the cases give now; with words, those alone

A case is a command line: three outer steps (one for each backbone) and a validation of five tasks, on tiny networks
and one thread. Kept are the metrics of each step, a digest of the weights after it, their length in each optimizer,
each tensor's length in the end, and every task's scores. Another machine, or another version of torch or numpy, rounds
in its own way: there the digests differ and the numbers agree to some digits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from metarun.run.evaluation import evaluate
from metarun.run.interrupt import StopRequest

# All that is used of the package, and how: what moves in it is changed here and down to CASES.
from metarun.settings.build import build_parts
from metarun.settings.compose import compose
from metarun.settings.conf import CONF
from metarun.settings.resolve import resolve

EVALUATED = 5
"""Tasks of a validation, four at once."""


class Trial:
    """A learner, its tasks and its optimizers as the command line's `words` describe them."""

    def __init__(self, words: Sequence[str]) -> None:
        config = compose(words)
        self.parts = build_parts(resolve(config), Path())
        self.batches = self.parts.learner.train_stream(self.parts.source, 0, config.run.meta_batch_size)

    def step(self, number: int) -> dict[str, Any]:
        """Outer step `number` on the next meta-batch; its metrics, and the learning rates after it."""
        parts = self.parts
        _, metrics = parts.group.outer_step(parts.learner.train(), None, next(self.batches), parts.optims, number)
        for schedule in parts.schedules:
            schedule.step()
        rates = {f"lr_{name}": optim.param_groups[0]["lr"] for name, optim in parts.optims.items()}
        return {**metrics, **rates}

    def scores(self) -> dict[str, Any]:
        """Each score of each validation task."""
        return dict(evaluate(self.parts.learner, self.parts.source, "val", EVALUATED, 4, StopRequest()))

    def tasks(self) -> str:
        """A hash of which examples the validation tasks hold."""
        return self.parts.source.fingerprint("val", EVALUATED)

    def images(self) -> torch.Tensor | None:
        """All pixels; None where tasks are functions."""
        return getattr(self.parts.source, "pixels", None)

    def parameters(self) -> dict[str, torch.Tensor]:
        return dict(self.parts.learner.named_parameters())

    def buffers(self) -> dict[str, torch.Tensor]:
        return dict(self.parts.learner.named_buffers())

    def groups(self) -> dict[str, list[torch.Tensor]]:
        """What each optimizer moves."""
        return {name: [p for g in o.param_groups for p in g["params"]] for name, o in self.parts.optims.items()}


def learns(algo: str) -> set[str]:
    """classification, regression, gaussian process: what the method can."""
    return set(get_object(ALGOS[algo]["algo"]["_target_"]).kinds)


ALGOS: dict[str, dict[str, Any]] = {
    path.stem: dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
    for path in sorted((CONF / "algo").glob("*.yaml"))
}
BACKBONES = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))

SMALL = ["run.steps=4", "logger=none", "device=cpu", "threads=1"]
IMAGES = [
    *SMALL, "data.alphabets=6", "data.characters=8", "data.drawings=14", "data.k_shot=2", "data.n_query=3",
    "data.train.n_query=4",
]  # fmt: skip
POINTS = [*SMALL, "run.meta_batch_size=3"]
FEWER = {  # of what a method takes many; two and three, so that training and test are told apart
    "algo": {"inner_steps": 2, "test_inner_steps": 3, "inner_batch_size": 6, "test_inner_batch_size": 4, "width": 8,
             "latent": 4, "heads": 2, "test_samples": 5, "hidden": 6, "units": 5, "n_context": 7, "multi_step": 2,
             "first_order_steps": 1, "pretraining": 0.5, "batch_size": 24, "cg_steps": 3},
    "data": {"n_way": 6, "k_shot": 4},
}  # fmt: skip


def fewer(algo: str) -> list[str]:
    own, train = ALGOS[algo]["algo"], ALGOS[algo].get("data", {}).get("train", {})
    words = [f"algo.{key}={value}" for key, value in FEWER["algo"].items() if key in own]
    return words + [f"data.train.{key}={value}" for key, value in FEWER["data"].items() if key in train]


def on_images(algo: str, *words: str) -> list[str]:
    size = 24 if ALGOS[algo].get("run", {}).get("meta_batch_size") == 256 else 3  # images or tasks
    network = [] if "{'override /backbone': 'none'}" in str(ALGOS[algo].get("defaults")) else ["backbone.hidden=8"]
    return [f"algo={algo}", *IMAGES, *network, f"run.meta_batch_size={size}", *fewer(algo), *words]


def on_points(algo: str, data: str, *words: str) -> list[str]:
    own = "override /backbone" in str(ALGOS[algo].get("defaults"))  # the method brings its own network
    few = [word for word in fewer(algo) if not word.startswith("data.")]
    return [f"algo={algo}", f"data={data}", *POINTS, *([] if own else ["backbone.widths=[8,6]"]), *few, *words]


def cases() -> dict[str, tuple[int, list[str]]]:
    """Outer steps and command line of each case."""
    found = {}
    for algo in ALGOS:
        if "classification" in learns(algo):
            found[f"{algo} glyphs"] = on_images(algo)
        if "regression" in learns(algo):
            found[f"{algo} sinusoid"] = on_points(algo, "sinusoid")
        if learns(algo) == {"described"}:
            found[f"{algo} described"] = [f"algo={algo}", "data=described", *SMALL, "data.n_query=2", *fewer(algo)]
        if learns(algo) == {"domains"}:
            found[f"{algo} moons"] = on_points(algo, "moons")
        if learns(algo) == {"domain generalisation"}:
            found[f"{algo} turned_moons"] = on_points(algo, "turned_moons")
        if learns(algo) == {"gaussian process"}:
            found[f"{algo} gp"] = on_points(algo, "gp", "data.length_scale=[0.3,0.6]")
    for algo in ("maml", "maml_pp", "protonet", "simpleshot"):
        found |= {f"{algo} glyphs bn={bn}": on_images(algo, f"bn={bn}") for bn in ("support", "running")}
    for optim, more in OPTIMS.items():
        for schedule, own in SCHEDULES.items():
            words = [f"optim={optim}", f"optim/schedule={schedule}", *more, *own]
            found[f"maml sinusoid optim={optim} {schedule}"] = on_points("maml", "sinusoid", *words)
    for algo in ("anil", "boil", "fomaml", "maml", "meta_curvature", "meta_sgd", "protonet"):
        found[f"{algo} glyphs learn2learn"] = on_images(algo, "algo.engine=learn2learn")
    found |= {
        " ".join([algo, data, *words]): on_images(algo, *words) if data == "glyphs" else on_points(algo, data, *words)
        for algo, data, *words in WITH
    }
    one = {f"protonet glyphs backbone={name}": backbone(name) for name in BACKBONES if name != "none"}
    return {name: (3, words) for name, words in found.items()} | {name: (1, words) for name, words in one.items()}


OPTIMS = {
    "adam": ["optim.lr=0.02"],
    "adamw": ["optim.lr=0.02", "optim.weight_decay=0.1"],
    "sgd": ["optim.lr=0.05", "optim.momentum=0.9", "optim.clip_norm=0.5"],
}
SCHEDULES: dict[str, list[str]] = {
    "constant": [], "cosine": ["optim.schedule.eta_min=0.001"], "cosine_restarts": [],
    "linear": ["optim.schedule.end_factor=0.2"], "step": ["optim.schedule.step_size=2"],
}  # fmt: skip
WITH = [  # a method and its data with settings that are not the usual ones
    ("maml", "glyphs", "run.compile=true"),
    ("protonet", "glyphs", "run.compile=true", "algo.task_chunk=0"),
    ("maml", "sinusoid", "run.compile=true"),
    ("maml", "glyphs", "algo.task_chunk=2"),
    ("maml", "glyphs", "algo.task_chunk=1"),
    ("maml", "glyphs", "bn=running", "algo.task_chunk=2"),
    ("protonet", "glyphs", "algo.task_chunk=2"),
    ("maml", "glyphs", "algo.first_order=true"),
    ("maml", "glyphs", "algo.inner_optimizer=momentum"),
    ("maml", "glyphs", "algo.inner_optimizer=adam", "algo.inner_lr=0.01"),
    ("maml", "glyphs", "algo.inner_clip_norm=0.3"),
    ("maml", "glyphs", "algo.report_steps=[0,1]"),
    ("maml", "glyphs", "seed=1", "data.eval_seed=1"),
    ("maml", "glyphs", "data.rotation=class"),
    ("imaml", "glyphs", "algo.curvature=hessian", "algo.cg_damping=0.5"),
    ("cavia", "sinusoid", "algo.film_scale=true", "algo.layer=2"),
    ("maml_pp", "glyphs", "algo.learn_rates=false", "algo.per_step_norm=false"),
    ("reptile", "glyphs", "algo.inner_optimizer=sgd"),
    ("protonet", "glyphs", "algo.distance=cosine"),
    ("protonet", "glyphs", "data.rotation=random"),
    ("matchingnet", "glyphs", "algo.fce=true"),
    ("relationnet", "glyphs", "algo.loss=cross_entropy"),
    ("simpleshot", "glyphs", "algo.features=l2n"),
    ("np", "sinusoid", "algo.deterministic=false"),
    ("maml", "harmonic"),
    ("cnp", "gp"),
    ("anp", "gp", "data.kernel=matern32"),
    ("cnp", "completion"),
    ("anp", "harmonic"),
]


def backbone(name: str) -> list[str]:
    """ProtoNet on a narrow kind of each network."""
    narrow = {
        "mlp": ["widths=[9,8,7,6]"], "mlp_small": ["widths=[8,6]"], "vit": ["hidden=8", "layers=2", "heads=2"],
        "wrn28_10": ["depth=10", "width=1"], "torchvision": ["name=shufflenet_v2_x0_5"],
        "resnet10": ["widths=[4,5,6,7]"], "resnet18": ["widths=[4,5,6,7]"],
        "conv4_r2d2": ["widths=[4,6]"], "timm": ["name=test_resnet"],
        "open_clip": [f"name={Path(__file__).parents[1] / 'tests' / 'data' / 'tiny_clip.json'}"],
        "resnet12": ["widths=[4,5,6,7]"], "resnet12_512": ["widths=[4,5,6,7]"],
    }  # fmt: skip
    own = [f"backbone.{word}" for word in narrow.get(name, ["hidden=8"])]
    if name == "vit":  # its attention has key biases, whose gradients are rounding alone: Adam would enlarge it
        own += ["optim=sgd", "optim.lr=0.05"]
    return [word for word in on_images("protonet", f"backbone={name}") if word != "backbone.hidden=8"] + own


CACHE = Path(tempfile.gettempdir()) / "metarun-snapshot"
"""Of drawn glyphs, which are the same wherever they are drawn."""

KEPT = Path(__file__).resolve().parents[1] / "tests" / "data" / "snapshot.json"

LIMITS = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE")
"""Environment variables that keep torch's libraries from some of the processor's instructions."""

Numbers = dict[str, Any]


def numbers_of(steps: int, words: Sequence[str], cache: Path = CACHE) -> Numbers:
    """What a case gives, as it is kept."""
    torch.set_num_threads(1)
    trial = Trial([*words, f"paths.cache={cache}"])
    found: Numbers = {"tasks": trial.tasks()[:16], "start": digest(trial.parameters()), "steps": []}
    if (pixels := trial.images()) is not None:
        found["images"] = digest({"pixels": pixels})
    for number in range(steps):
        metrics = {name: plain(value) for name, value in trial.step(number).items()}
        lengths = {name: length(weights) for name, weights in trial.groups().items()}
        now: Numbers = {"metrics": metrics, "lengths": lengths, "parameters": digest(trial.parameters())}
        if trial.buffers():
            now["buffers"] = digest(trial.buffers())
        found["steps"].append(now)
    found["tensors"] = {
        name: float(f"{length([tensor]):.8g}")
        for name, tensor in (trial.parameters() | trial.buffers()).items()
        if tensor.is_floating_point()
    }
    found["scores"] = {name: [plain(value) for value in values] for name, values in trial.scores().items()}
    return found


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of all bits, whatever the tensors are called and in whichever order they come."""
    each = sorted(hashlib.sha256(t.detach().contiguous().numpy().tobytes()).digest() for t in tensors.values())
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]


def length(tensors: Sequence[torch.Tensor]) -> float:
    return float(sum(float((tensor.detach().double() ** 2).sum()) for tensor in tensors) ** 0.5)


def plain(value: Any) -> float:
    """A number with as few digits as give its bits again in its own type."""
    array = np.asarray(value.detach().numpy() if isinstance(value, torch.Tensor) else value)
    return float(str(array[()]))


def made_with() -> dict[str, str]:
    """What rounding depends on."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    told = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    flags = [flag for flag in told.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))]
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": told.get("vendor_id") or platform.processor(),
        "instructions": f"{torch.backends.cpu.get_cpu_capability()}: {' '.join([*sorted(flags), *limits])}",
    }


Difference = tuple[str, float, str]
"""Where it is, how large relative to the larger number (to one if that is more, but for rates), and in words."""


def differences(kept: Numbers, now: Numbers, bits: bool = True) -> Iterator[Difference]:
    """What of a case is not as it is kept; digests are looked at where `bits` is set.

    Where tensors have other names and the same lengths, they were renamed, which is no difference.
    """
    kept, now = flat(kept), flat(now)
    if sorted(tensors_of(kept).values()) == sorted(tensors_of(now).values()):
        kept, now = ({key: v for key, v in side.items() if not key.startswith("tensors")} for side in (kept, now))
    for key in dict.fromkeys([*kept, *now]):
        if key not in kept or key not in now:
            yield key, float("inf"), f"only {'now' if key in now else 'then'}"
            continue
        then, today = kept[key], now[key]
        if isinstance(then, str):
            if bits and then != today:
                yield key, 0.0, f"{then} then, {today} now"
        elif then != today:
            apart = abs(then - today) / max(abs(then), abs(today), 0.0 if " lr_" in key else 1.0)
            yield key, apart, f"{then} then, {today} now: {apart:.1e} apart"


def tensors_of(case: Numbers) -> Numbers:
    return {key: value for key, value in case.items() if key.startswith("tensors")}


def flat(node: Any, place: str = "") -> Numbers:
    """`steps 2 metrics loss`, counted from 1, and so on."""
    if not isinstance(node, dict | list):
        return {place: node}
    pairs = node.items() if isinstance(node, dict) else enumerate(node, 1)
    return {key: v for name, value in pairs for key, v in flat(value, f"{place} {name}".strip()).items()}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="cases whose name has one of these in it")
    parser.add_argument("--write", action="store_true", help="keep what the cases give now")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative; more is a difference (1e-6)")
    parser.add_argument("--lines", type=int, default=4, help="differences shown of a case, the largest (4)")
    asked = parser.parse_args(arguments)
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {"made_with": {}, "cases": {}}
    chosen = {n: case for n, case in cases().items() if not asked.words or any(w in n for w in asked.words)}
    started, found = time.perf_counter(), {}
    machine, same_machine = made_with(), made_with() == kept["made_with"]
    for what in () if asked.write or same_machine else sorted({*machine, *kept["made_with"]}):
        if machine.get(what) != kept["made_with"].get(what):
            print(f"{what}: {kept['made_with'].get(what)} then, {machine.get(what)} now")
    counts = dict.fromkeys(("same bits", f"within {asked.tolerance:g}", "differ", "not kept"), 0)
    for name, (steps, words) in chosen.items():
        try:
            found[name] = numbers_of(steps, words)
        except Exception as error:  # the others are still told of
            print(f"{name}: {type(error).__name__}: {error}")
            counts["differ"] += 1
            continue
        if asked.write:
            continue
        if name not in kept["cases"]:
            counts["not kept"] += 1
            print(f"{name}: not kept")
            continue
        apart = sorted(differences(kept["cases"][name], found[name]), key=lambda one: -one[1])
        verdict = list(counts)[0 if not apart else 1 if apart[0][1] <= asked.tolerance else 2]
        counts[verdict] += 1
        if apart:
            print(f"{name}: {verdict}; {len(apart)} numbers or digests are others")
            for place, _, said in apart[: asked.lines]:
                print(f"    {place}: {said}")
    gone = sorted(set(kept["cases"]) - set(cases()))
    if asked.write:
        write({name: both[name] for name in cases() if name in (both := kept["cases"] | found)}, machine)
        print(f"{len(found)} cases, {KEPT.stat().st_size / 1000:.0f} kB in {KEPT.name}")
    else:
        print("".join(f"kept, and no case now: {name}\n" for name in gone), end="")
        print(", ".join(f"{count} {words}" for words, count in counts.items() if count))
    print(f"{time.perf_counter() - started:.0f} s")
    return int(bool(counts["differ"] or counts["not kept"] or (gone and not asked.write)))


def write(found: Mapping[str, Numbers], machine: Mapping[str, str]) -> None:
    """A line a case, so that what changes is seen in a diff."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}" for name, case in found.items())
    KEPT.write_text(f'{{"made_with": {json.dumps(machine, indent=1)},\n"cases": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
