from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from metarun.core import objectives
from metarun.core.episodes import EpisodeIndices, Ints, draw_episodes, draw_members, hash_episodes, iterate_places
from metarun.core.postponed import write_later
from metarun.core.ranges import Ascending, FilePath, PositiveInt
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples, SourceInfo
from metarun.data.device import to_device
from metarun.data.files.labelled_lines import read_lines
from metarun.data.files.split_file import normalise_name, read_split_file, write_split_file
from metarun.data.files.splits import SPLITS, check_split, count_ways, draw_split, hash_split
from metarun.ops.ngrams import hash_ngrams


class Text:
    """Few-shot classification of your own texts, each a vector: hashed character n-grams, or a sentence encoder's.

    Tasks are N-way K-shot over disjoint train, val and test classes. The first run splits the classes at random, and
    writes the split to a file beside the texts, where you can read and change it. All vectors lie in memory.

    Shapes: x [..., D] float32 of length 1, with D = buckets, or the encoder's.
    Args:
        plan, device: from the runner.
        path: a folder of files CLASS.txt with a text in each line, or a table .csv or .tsv with columns label and text.
        split: a file of lines `train CLASS`, written if it does not exist; None is one beside the texts.
        fractions: shares of the classes for training, validation and test; they sum to 1.
        split_seed: seed of the random split.
        least: leave out classes with fewer texts than this.
        buckets: D of n-grams.
        lengths: the least and the greatest n of n-grams, in characters.
        encoder: None for n-grams; else a model of sentence-transformers by its name or folder, if that is installed.
    Raises: ValueError if there are no texts, too few classes, or no such encoder.
    """

    def __init__(
        self,
        plan: EpisodePlan,
        device: torch.device,
        path: FilePath | None,
        split: FilePath | None,
        fractions: Sequence[float],
        split_seed: int,
        least: PositiveInt,
        buckets: PositiveInt,
        lengths: Annotated[Sequence[PositiveInt], Ascending()],
        encoder: FilePath | None,
    ) -> None:
        if path is None:
            raise ValueError("data=text needs data.path=FOLDER of files CLASS.txt, or a table with label and text")
        place = Path(path).expanduser()
        texts = {label: lines for label, lines in read_lines(place).items() if len(lines) >= least}
        named = "_".join(f"{100 * fraction:g}" for fraction in fractions)
        beside = place.resolve().parent / f"{place.resolve().stem}_split_{named}_seed{split_seed}.txt"
        file = Path(split).expanduser() if split else beside
        drawn = draw_split(list(texts), fractions, split_seed, count_ways(plan))
        parts = read_split_file(file) if file.exists() else drawn
        sizes = {normalise_name(label): len(lines) for label, lines in texts.items()}
        parts = check_split(parts, sizes, plan)
        names = list(texts)
        lines = [line for label in names for line in texts[label]]
        vectors = _encode(lines, encoder) if encoder else hash_ngrams(lines, buckets, lengths)
        self.plan, self.device, self.vectors = plan, device, torch.from_numpy(vectors).to(device)
        ends = np.cumsum([len(texts[label]) for label in names])
        number = {label: c for c, label in enumerate(names)}
        self._names = parts
        self._starts = {s: np.array([(0, *ends)[number[label]] for label in parts[s]], np.int64) for s in SPLITS}
        self._sizes = {s: np.array([sizes[label] for label in parts[s]], np.int64) for s in SPLITS}
        self.classes = {s: {f"{type(self).__name__}/{label}" for label in parts[s]} for s in SPLITS}
        self.info = SourceInfo(
            input_shape=(int(self.vectors.shape[1]),),
            n_way=plan.test.n_way,
            outputs=plan.test.n_way,
            objective=objectives.classification,
            train_classes=len(parts["train"]),
            split_sha256=hash_split(parts),
            facts={
                "classes": {s: len(parts[s]) for s in SPLITS},
                "texts_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
            },
        )
        if not file.exists():  # what was refused must not be found by the next run
            write_later(partial(write_split_file, file, parts))

    def episodes(self, split: str, first: int, batch_size: int) -> Iterator[Batch]:
        for places in iterate_places(first, batch_size):
            drawn, n_way = self._draw(split, places)
            support = self._gather(split, drawn.classes, drawn.support, drawn.support_y)
            yield Batch(support, self._gather(split, drawn.classes, drawn.query, drawn.query_y), n_way)

    def examples(self, split: str, first: int, batch_size: int) -> Iterator[Examples]:
        for places in iterate_places(first, batch_size):
            label, text = draw_members(self.plan.seed_of(split), f"{split}/examples", places, self._sizes[split])
            rows = self._starts[split][label] + text
            yield Examples(self._vectors_of(rows), to_device(label, self.device))

    def labels(self, split: str, index: int) -> list[str]:
        """Return the names of the classes that are labelled 0..N-1 in task number `index`."""
        drawn, _ = self._draw(split, np.array([index]))
        return [self._names[split][number] for number in drawn.classes[0]]

    def fingerprint(self, split: str, n_tasks: int) -> str:
        drawn, _ = self._draw(split, np.arange(n_tasks))
        return hash_episodes(drawn)

    def _draw(self, split: str, indices: Ints) -> tuple[EpisodeIndices, int]:
        shape: EpisodeShape = self.plan.shape_of(split)
        return draw_episodes(self.plan.seed_of(split), split, indices, self._sizes[split], shape), shape.n_way

    def _gather(self, split: str, classes: Ints, texts: Ints, y: Ints) -> Examples:
        """Return the drawn texts, whose labels are y: x [B, S, D], y [B, S]."""
        rows = self._starts[split][np.take_along_axis(classes, y, axis=1)] + texts
        return Examples(self._vectors_of(rows), to_device(y, self.device))

    def _vectors_of(self, rows: Ints) -> Tensor:
        return self.vectors[to_device(rows, self.device)].to(torch.get_default_dtype())


def _encode(texts: Sequence[str], encoder: str) -> np.ndarray:
    """Return the unit vectors of texts by a model of sentence-transformers: [R, D] float32."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError(
            f"data.encoder={encoder} needs sentence-transformers, which is not installed; set data.encoder=null for "
            "hashed n-grams"
        ) from error
    model = SentenceTransformer(encoder, device="cpu")
    return np.asarray(model.encode(list(texts), normalize_embeddings=True), np.float32)
