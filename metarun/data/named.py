from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any

import torch
from torch import Tensor

from metarun.core.episodes import EpisodeIndices
from metarun.core.ranges import CountsWith, FilePath
from metarun.data.device import to_device
from metarun.data.files.class_names import NAMES, tokenize_names
from metarun.data.files.descriptions import find_descriptions
from metarun.data.images import ImageTasks
from metarun.data.open_images import Members, open_images


class Named(ImageTasks):
    """The tasks of a source of images, beside what is said of their classes: for heads that read both.

    `Batch.side` has `tokens` [B, N, P, L], CLIP's, of the name of each class in P texts; or `vectors` [B, N, 1, D]
    from a file, such as embeddings of the names by a network that was trained with the one of images.

    Args:
        open_source: from the runner; opens the source that a name of `data=` stands for.
        images: name of the source of the images.
        descriptions: `names`; or a file with a vector for each class, see metarun/data/files/descriptions.py.
        templates: of `names`, texts with a {} where the name comes.
        members: settings of the source of the images that are to be other than its own, by its name.
    Raises: ValueError if the source has no images, or a class no vector.
    """

    def __init__(
        self,
        open_source: Callable[..., Any],
        images: str,
        descriptions: FilePath,
        templates: Annotated[Sequence[str], CountsWith("descriptions", (NAMES,))],
        members: Members = MappingProxyType({}),
    ) -> None:
        source = open_images(open_source, images, members, "cifar_fs")
        vars(self).update(vars(source))  # all that it is, with its seeds, its split and its look
        self.world = source.world or type(source).__name__
        settings = {"images": images, "descriptions": descriptions, "templates": templates}
        self.told = {s: self.tell_classes(names, settings) for s, names in source.take_apart()[1].items()}
        digest = hashlib.sha256(b"".join(t.numpy().tobytes() for own in self.told.values() for t in own.values()))
        self.info = replace(source.info, facts=source.info.facts | {"descriptions_sha256": digest.hexdigest()})

    @staticmethod
    def tell_classes(names: Iterable[str], settings: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what is said of classes by their names: `tokens` [N, P, L] int64, or `vectors` [N, 1, D].

        Args:
            settings: `images`, `descriptions` and `templates`.
        Raises: ValueError for a class that is not in the file of descriptions.
        """
        order = list(names)
        if settings["descriptions"] == NAMES:
            known = tokenize_names(order, settings["templates"])
            return {"tokens": torch.tensor([known[name].tolist() for name in order]).long()}
        vectors = find_descriptions(settings["descriptions"], order, settings["images"])
        return {"vectors": torch.tensor([vectors[name].tolist() for name in order])[:, None]}

    def describe_tasks(self, split: str, drawn: EpisodeIndices) -> dict[str, Tensor]:
        base = to_device(drawn.classes % len(self._classes[split]), self.device)  # [B, N], whatever their turns
        return {name: said.to(self.device)[base] for name, said in self.told[split].items()}
