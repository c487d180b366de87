"""What is timed: settings, and the episodes and weights that every contestant makes of them for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Weights = dict[str, Floats]


@dataclass(frozen=True)
class Setting:
    """One step of one method on one shape of tasks.

    Attributes:
        algo: `maml`, `fomaml`, `anil` or `protonet`; `sampling` draws the episodes and learns nothing.
        size: height and width: 28 with one channel, or 84 with three.
        tasks: of a step.
        steps: inner steps.
        use: `train`, an outer step with Adam, or `test`, scores alone.
        data: `given`, the same episodes in memory for all and in every step; `omniglot`, each draws its own from files,
            as it does in a run.
        chunk: metarun's algo.task_chunk; 0 is its own choice.
        device: `cpu`, or a GPU by torch's name.
    """

    name: str
    algo: str
    n_way: int = 5
    k_shot: int = 1
    n_query: int = 1
    size: int = 28
    tasks: int = 16
    steps: int = 1
    use: str = "train"
    data: str = "given"
    chunk: int = 0
    device: str = "cpu"

    @property
    def channels(self) -> int:
        return 1 if self.size == 28 else 3

    @property
    def downsample(self) -> str:
        """Omniglot's network strides (MAML's code), the others pool; as both packages have it."""
        return "stride" if self.size == 28 and self.algo != "protonet" else "pool"

    @property
    def hidden(self) -> int:
        return 64 if self.size == 28 else 32

    @property
    def features(self) -> int:
        """Numbers that the last layer makes of an image."""
        return self.hidden * (1 if self.downsample == "stride" else (self.size // 16) ** 2)

    @property
    def inner_lr(self) -> float:
        """Small where rounding would grow from step to step, so that float32 losses can be compared."""
        return 0.4 if self.steps == 1 and self.size == 28 else 0.05

    @property
    def said(self) -> str:
        """In words."""
        shape = f"{self.n_way}-way {self.k_shot}-shot, {self.n_query} queries a class, {self.size}x{self.size}"
        steps = f", {self.steps} inner steps" if self.algo in ("maml", "fomaml", "anil") else ""
        return f"{self.algo} {self.use}, {shape}, {self.tasks} tasks{steps}, data {self.data}"


class Episodes(NamedTuple):
    """Support and query sets: x [B, R, C, H, W] in 0..1, y [B, R]."""

    support_x: Floats
    support_y: NDArray[np.int64]
    query_x: Floats
    query_y: NDArray[np.int64]


OUTER_LR = 1e-3
"""Of Adam."""


def episodes(setting: Setting) -> Episodes:
    """Tasks of pictures of noise: a class is a picture, its images are noisy copies. The same in every process."""
    rng = np.random.default_rng(0)
    ways, shots, queries = setting.n_way, setting.k_shot, setting.n_query
    classes = rng.random((setting.tasks, ways, 1, setting.channels, setting.size, setting.size))
    noise = rng.normal(0, 0.3, (setting.tasks, ways, shots + queries, *classes.shape[3:]))
    images = np.clip(classes + noise, 0, 1)
    support, query = images[:, :, :shots], images[:, :, shots:]
    labels = (np.broadcast_to(np.repeat(np.arange(ways), n), (setting.tasks, ways * n)) for n in (shots, queries))
    support_y, query_y = (label.copy() for label in labels)
    return Episodes(_rows(support), support_y, _rows(query), query_y)


def weights(setting: Setting) -> Weights:
    """Initial weights of the four blocks and, where there is one, the head; the same in every process."""
    rng = np.random.default_rng(1)
    made: Weights = {}
    for layer in range(4):
        inputs, hidden = setting.channels if layer == 0 else setting.hidden, setting.hidden
        made[f"conv{layer}.weight"] = rng.uniform(-1, 1, (hidden, inputs, 3, 3)) * (6 / (9 * (inputs + hidden))) ** 0.5
        made[f"norm{layer}.weight"], made[f"norm{layer}.bias"] = rng.uniform(0.5, 1.5, hidden), np.zeros(hidden)
    if setting.algo != "protonet":
        made["head.weight"] = rng.normal(0, setting.features**-0.5, (setting.n_way, setting.features))
        made["head.bias"] = np.zeros(setting.n_way)
    return made


def chosen(names: str) -> list[Setting]:
    """The settings of a comma-separated list of names, or of what they begin with. Raises: SystemExit for none."""
    found: list[Setting] = []
    for name in names.split(","):
        exact = [s for s in SETTINGS if s.name == name] or [s for s in SETTINGS if s.name.startswith(name)]
        if not exact:
            raise SystemExit(f"there is no setting {name}; choices are {', '.join(s.name for s in SETTINGS)}")
        found += [setting for setting in exact if setting not in found]
    return found


def curves(device: str) -> dict[str, list[Setting]]:
    """Settings whose cost shows how it grows: by what varies, from the least to the most."""
    base = Setting("scaling", "maml", tasks=8, device=device)
    if device != "cpu":  # which hardly notices few tasks
        sizes = {"tasks": (28, (8, 32, 128, 512, 2048)), "tasks, 84x84": (84, (4, 16, 64, 256))}
        return {
            name: [replace(base, name=f"{name} {n}", size=size, tasks=n) for n in counts]
            for name, (size, counts) in sizes.items()
        }
    return {
        "tasks": [replace(base, name=f"tasks {n}", tasks=n) for n in (4, 8, 16, 32, 64)],
        "tasks, chunks of 4": [
            replace(base, name=f"tasks {n}, chunks of 4", tasks=n, chunk=4) for n in (4, 16, 32, 64)
        ],
        "inner steps": [replace(base, name=f"inner steps {n}", steps=n) for n in (1, 2, 5, 10)],
        "shots": [replace(base, name=f"shots {n}", k_shot=n) for n in (1, 2, 5, 10)],
    }


def _rows(images: Floats) -> Floats:
    tasks, ways, per_class, *image = images.shape
    return images.reshape(tasks, ways * per_class, *image)


SETTINGS = [
    Setting("maml-5w1s", "maml"),
    Setting("fomaml-5w1s", "fomaml"),
    Setting("protonet-5w1s-q15", "protonet", n_query=15, tasks=2),
    Setting("maml-5w1s-t4", "maml", tasks=4),
    Setting("maml-5w1s-t32", "maml", tasks=32),
    Setting("maml-5w1s-t32-omniglot", "maml", tasks=32, data="omniglot"),
    Setting("maml-5w1s-q15", "maml", n_query=15, tasks=4),
    Setting("maml-5w5s-q15-5steps", "maml", k_shot=5, n_query=15, tasks=4, steps=5),
    Setting("maml-20w1s", "maml", n_way=20, tasks=4),
    Setting("maml-84-5w1s", "maml", size=84, tasks=4),
    Setting("fomaml-5w5s", "fomaml", k_shot=5),
    Setting("fomaml-84-5w1s", "fomaml", size=84, tasks=4),
    Setting("anil-5w1s-5steps", "anil", steps=5),
    Setting("anil-5w5s-q15-5steps", "anil", k_shot=5, n_query=15, tasks=4, steps=5),
    Setting("anil-84-5w1s-5steps", "anil", size=84, tasks=4, steps=5),
    Setting("protonet-20w1s-q5", "protonet", n_way=20, n_query=5, tasks=4),
    Setting("protonet-84-5w1s-q15", "protonet", size=84, n_query=15, tasks=4),
    Setting("test-maml-5w1s", "maml", use="test", tasks=32),
    Setting("test-maml-5w1s-q15-3steps", "maml", n_query=15, use="test", steps=3),
    Setting("test-anil-5w1s-10steps", "anil", use="test", steps=10),
    Setting("test-protonet-5w1s-q15", "protonet", n_query=15, use="test"),
    Setting("test-maml-84-5w1s-3steps", "maml", size=84, use="test", tasks=4, steps=3),
    Setting("sampling-5w-x2", "sampling", tasks=300),
    Setting("sampling-5w-x16", "sampling", n_query=15, tasks=100),
    Setting("sampling-20w-x2", "sampling", n_way=20, tasks=300),
]
QUICK = "maml-5w1s,fomaml-5w1s,protonet-5w1s-q15"
USUAL = (
    f"{QUICK},maml-5w1s-t32,maml-5w1s-t32-omniglot,maml-5w5s-q15-5steps,maml-20w1s,maml-84-5w1s,anil-5w1s-5steps,"
    "test-maml-5w1s,test-protonet-5w1s-q15,sampling-5w-x2"
)
