"""Pre-train, meta-learn, task-train: three stages, what each gains, and the stages alone, on the same test tasks.

    uv run python scripts/pipeline.py outputs/pipeline                   # +experiment=pipeline_cifar_fs, seeds 0, 1, 2
    uv run python scripts/pipeline.py FOLDER --seeds 0 data=omniglot run.steps=300

Of each seed: `one`, a classifier of all training classes, tested by cosines to class means; `two`, these cosines
trained on tasks from random weights, in as many outer steps as both stages have together; `both`, the same from the
network of `one`, at a tenth of the rate; `tuned`, the network of `both` fine-tuned on each task's support set, with
the step size that is best in validation, which alone is tested.
No stage sees a test task before its own test. Finished runs are kept: the same command goes on where it was stopped.

Reference: Hu, Li, Stühmer, Kim, Hospedales. Pushing the Limits of Simple Pipelines for Few-Shot Learning. CVPR 2022.
    arXiv:2204.07305, section 3. `tuned` fine-tunes on the support images as they are; algo=pmf on augmented copies, as
    the paper does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from metarun.core.run_folder import RunFolder
from metarun.core.scores import estimate
from metarun.report.runs import open_run
from metarun.report.stats import format_difference
from metarun.report.two_levels import estimate_difference

STEP_SIZES = (0.001, 0.003, 0.01, 0.03)
"""Of stage three; each task starts again from the same network."""

SLOWER = "optim.lr=0.0003"
"""Of stage two after stage one. At the rate of stage one, 0.003, it takes away a point of what that has learned."""

STAY = ("run.steps=1", "optim=sgd", "optim.lr=1e-12")
"""Stage three learns nothing across tasks: one outer step that does not move the network."""

Command = Callable[[Sequence[str]], int]


def run_stages(folder: Path, seed: int, words: Sequence[str], steps: int, command: Command) -> dict[str, Path]:
    """Run what is not finished yet of the stages of one seed; return the folder of each, by its name."""

    def run(name: str, *own: str) -> Path:
        place = folder / f"{name}-s{seed}"
        if RunFolder(place).read_results().get("status") != "finished":
            again = RunFolder(place).has_settings()
            asked = ["resume", str(place)] if again else [*words, *own, f"seed={seed}", f"hydra.run.dir={place}"]
            if command(asked):
                raise SystemExit(f"{place} failed: see its run.log")
        return place

    one = run("one", "algo=meta_baseline", "algo.pretraining=1", f"run.steps={steps}")
    two = run("two", "algo=meta_baseline", "algo.pretraining=0", f"run.steps={2 * steps}")
    both = run(
        "both", "algo=meta_baseline", "algo.pretraining=0", SLOWER, f"run.steps={steps}", f"backbone.weights={one}"
    )
    three = ("algo=finetune", *STAY, f"backbone.weights={both}")
    tried = {size: run(f"try{size}", *three, f"algo.inner_lr={size}", "run.test_tasks=2") for size in STEP_SIZES}
    best = max(tried, key=lambda size: RunFolder(tried[size]).read_results()["val"]["accuracy"])
    return {"one": one, "two": two, "both": both, "tuned": run(f"tuned{best}", *three, f"algo.inner_lr={best}")}


def main(arguments: Sequence[str], command: Command | None = None) -> dict[str, np.ndarray]:
    """Run all seeds, print the table, and return the accuracies [seeds, tasks] by the stage's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=_read_seeds, default=[0, 1, 2], help="as 0,1,2")
    parser.add_argument("--steps", type=int, default=300, help="outer steps of stages one and two, each")
    asked, words = parser.parse_known_args(arguments)
    chosen = any(word.startswith(("data=", "+experiment=")) for word in words)
    words = words if chosen else ["+experiment=pipeline_cifar_fs", *words]
    places = [run_stages(asked.folder, seed, words, asked.steps, command or _call) for seed in asked.seeds]
    scores = {name: np.stack([_read(of_seed[name]) for of_seed in places]) for name in places[0]}
    for name, values in scores.items():
        found = estimate(values.mean(0))
        print(
            f"{name:6} {100 * found.mean:6.2f} ± {100 * found.ci95:.2f} %  {len(values)} seeds, {found.n_tasks} tasks"
        )
    for name, before in (("both", "one"), ("both", "two"), ("tuned", "both")):
        gains = scores[name] - scores[before]  # seeds are paired too: a stage goes on from that of its own seed
        if difference := estimate_difference(gains, np.zeros_like(gains)):
            print(f"{name} - {before}: {format_difference('accuracy', difference)}  p {difference.p:.2g}")
    print("step sizes by validation:", ", ".join(of_seed["tuned"].name for of_seed in places))
    return scores


def _read_seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


def _read(place: Path) -> np.ndarray:
    found = open_run(place).task_scores("accuracy")
    assert found
    return found[1]


def _call(words: Sequence[str]) -> int:
    return subprocess.call([sys.executable, "-m", "metarun", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
