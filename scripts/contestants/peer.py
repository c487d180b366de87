"""learn2learn, as its examples use it: maml_omniglot.py, anil and protonet, task by task.

Three things are as in metarun, in the peer's favour or so that the numbers are the same: support and query come as two
tensors, which saves splitting them; ANIL encodes the two apart; tests build no graph of second derivatives.
"""

from __future__ import annotations

import os
import random
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from contestants.settings import OUTER_LR, Floats, Setting, episodes, weights
from metarun.algos.base.learn2learn import learn2learn

l2l = learn2learn()


class Task(NamedTuple):
    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


class Learn2learn:
    """One setting.

    Args:
        fresh: begin with learn2learn's own initial weights.
    """

    def __init__(self, setting: Setting, fresh: bool = False) -> None:
        self.setting, self.stream = setting, stream(setting)
        if setting.algo == "sampling":
            return
        self.net = network(setting, fresh).to(setting.device)
        first_order = setting.algo == "fomaml" or setting.use == "test"
        adapted = self.net.classifier if setting.algo == "anil" else self.net
        if setting.algo != "protonet":
            self.maml = l2l.algorithms.MAML(adapted, lr=setting.inner_lr, first_order=first_order)
        self.optim = torch.optim.Adam(self.net.parameters(), OUTER_LR)
        self.loss = nn.CrossEntropyLoss(reduction="mean")

    def step(self) -> dict[str, float]:
        if self.setting.algo == "sampling":
            for _ in range(self.setting.tasks):
                next(self.stream)
            return {}
        if self.setting.use == "test":
            return self.tasks()
        self.optim.zero_grad()
        scores = self.tasks()
        for p in self.net.parameters():
            p.grad.mul_(1.0 / self.setting.tasks)
        self.optim.step()
        return scores

    def check(self) -> dict[str, Floats]:
        if self.setting.algo == "sampling":
            return {}
        self.stream = stream(self.setting)
        self.net.zero_grad()
        found: dict[str, Floats] = {name: np.array(value) for name, value in self.tasks().items()}
        if self.setting.use == "train":
            parameters = named(self.net)
            found |= {n: parameters[n].grad.numpy(force=True) / self.setting.tasks for n in weights(self.setting)}
        self.stream = stream(self.setting)
        return found

    def tasks(self) -> dict[str, float]:
        loss, accuracy, train = 0.0, 0.0, self.setting.use == "train"
        for _ in range(self.setting.tasks):
            task = next(self.stream)
            logits = self.logits(task)
            error = self.loss(logits, task.query_y)
            if train:
                error.backward()
            loss += error.item()
            accuracy += ((logits.argmax(dim=1) == task.query_y).sum().float() / task.query_y.size(0)).item()
        return {"loss": loss / self.setting.tasks, "accuracy": accuracy / self.setting.tasks}

    def logits(self, task: Task) -> Tensor:
        """Of a task's queries, after adapting."""
        train = self.setting.use == "train"
        if self.setting.algo == "protonet":
            with torch.set_grad_enabled(train):
                rows = task.support_x.size(0)
                embedded = self.net(torch.cat([task.support_x, task.query_x]))
                prototypes = embedded[:rows].reshape(self.setting.n_way, self.setting.k_shot, -1).mean(dim=1)
                return -l2l.nn.PrototypicalClassifier.euclidean_distance(prototypes, embedded[rows:])
        learner = self.maml.clone()
        if self.setting.algo == "anil":
            with torch.set_grad_enabled(train):
                support, query = (self.net.features(x) for x in (task.support_x, task.query_x))
        else:
            support, query = task.support_x, task.query_x
        for _ in range(self.setting.steps):
            learner.adapt(self.loss(learner(support), task.support_y))
        with torch.set_grad_enabled(train):
            logits: Tensor = learner(query)
        return logits


class Features(nn.Sequential):
    """learn2learn's blocks, and their last map as a vector."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(1)


def network(setting: Setting, fresh: bool) -> nn.Module:
    """learn2learn's own network of the setting's sizes; with the setting's weights, and convolutions' biases of 0."""
    net: nn.Module
    if setting.algo == "protonet":
        net = l2l.vision.models.CNN4Backbone(hidden_size=setting.hidden, channels=setting.channels, max_pool=True)
    elif setting.downsample == "stride":
        net = l2l.vision.models.OmniglotCNN(setting.n_way, hidden_size=setting.hidden)
    else:
        sizes = {"hidden_size": setting.hidden, "embedding_size": setting.features}
        net = l2l.vision.models.CNN4(setting.n_way, channels=setting.channels, **sizes)
    net.to(torch.get_default_dtype())
    if fresh:
        return net
    parameters = named(net)
    with torch.no_grad():
        for name, value in weights(setting).items():
            parameters[name].copy_(torch.from_numpy(value))
    return net


def named(net: nn.Module) -> dict[str, Tensor]:
    """The parameters by the settings' names."""
    blocks = [m for m in net.modules() if isinstance(m, l2l.vision.models.cnn4.ConvBlock)]
    found = {}
    for layer, block in enumerate(blocks):
        norm = {f"norm{layer}.{kind}": getattr(block.normalize, kind) for kind in ("weight", "bias")}
        found |= {f"conv{layer}.weight": block.conv.weight, **norm}
    if hasattr(net, "classifier"):
        found |= {"head.weight": net.classifier.weight, "head.bias": net.classifier.bias}
    return found


def stream(setting: Setting) -> Iterator[Task]:
    if setting.algo == "sampling":
        return drawn(noise_dataset(), setting)
    if setting.data == "omniglot":
        return drawn(omniglot_dataset(), setting, rotate=True)
    return given(setting)


def given(setting: Setting) -> Iterator[Task]:
    parts = (torch.from_numpy(part) for part in episodes(setting))
    dtype = torch.get_default_dtype()
    whole = [part.to(setting.device, dtype if part.is_floating_point() else None) for part in parts]
    tasks = [Task(*task) for task in zip(*whole, strict=True)]
    while True:
        yield from tasks


def drawn(dataset: Any, setting: Setting, rotate: bool = False) -> Iterator[Task]:
    """Tasks of a Taskset with the transforms of learn2learn's Omniglot benchmark."""
    random.seed(0)
    data, k = l2l.data.transforms, setting.k_shot + setting.n_query
    transforms = [
        data.FusedNWaysKShots(dataset, n=setting.n_way, k=k),
        data.LoadData(dataset),
        data.RemapLabels(dataset),
        data.ConsecutiveLabels(dataset),
    ]
    if rotate:
        transforms.append(l2l.vision.transforms.RandomClassRotation(dataset, [0.0, 90.0, 180.0, 270.0]))
    taskset = l2l.data.Taskset(dataset, task_transforms=transforms)
    support = (torch.arange(setting.n_way * k) % k) < setting.k_shot
    while True:
        x, y = (part.to(setting.device) for part in taskset.sample())  # as its example does
        if setting.algo == "protonet":  # as its example does
            y, order = torch.sort(y, stable=True)
            x = x[order]
        yield Task(x[support], y[support], x[~support], y[~support])


def noise_dataset() -> Any:
    """1,100 classes of 20 images in memory, as floats."""
    x = torch.from_numpy(np.random.default_rng(0).random((1100 * 20, 1, 28, 28), dtype=np.float32))
    y = torch.arange(1100).repeat_interleave(20)
    return l2l.data.MetaDataset(torch.utils.data.TensorDataset(x, y))


def omniglot_dataset(characters: Collection[str] = ()) -> Any:
    """learn2learn's benchmark dataset: Omniglot's files, each image opened and scaled when it is asked for.

    Args:
        characters: those that are wanted, as Latin/character01; none: the benchmark's 1,100.
    """
    from PIL.Image import LANCZOS
    from torchvision import transforms
    from torchvision.datasets import Omniglot

    from metarun.data.places.omniglot import find_files

    root = Path(tempfile.gettempdir()) / "metarun-bench-omniglot"
    (root / "omniglot-py").mkdir(parents=True, exist_ok=True)
    for part in find_files(os.environ.get("METARUN_DATA", "~/.cache/metarun")):
        if not (root / "omniglot-py" / part.stem).is_dir():
            with tempfile.TemporaryDirectory(dir=root) as aside, zipfile.ZipFile(part) as archive:
                archive.extractall(aside)
                (Path(aside) / part.stem).rename(root / "omniglot-py" / part.stem)  # whole or not at all
    Omniglot._check_integrity = lambda self: True  # the zip files' checksums: they are not there
    scaled = transforms.Compose(
        [transforms.Resize(28, interpolation=LANCZOS), transforms.ToTensor(), lambda x: 1.0 - x]
    )
    omniglot = l2l.vision.datasets.FullOmniglot(root=str(root), transform=scaled)
    names = [name for part in omniglot.dataset.datasets for name in part._characters]
    labels = [label for label, name in enumerate(names) if name in characters] if characters else list(range(1100))
    return l2l.data.FilteredMetaDataset(l2l.data.MetaDataset(omniglot), labels=labels)
