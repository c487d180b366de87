"""Draw the examples of episode i, as a pure function of (seed, stream, i).

There is no sampler and no state. Random bits come from SplitMix64 (Steele, Lea, Flood. Fast Splittable
Pseudorandom Number Generators. OOPSLA 2014), whose n-th output is a hash of a counter. So a few array
operations draw a whole meta-batch, and a stream can start at any episode.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarun.core.errors import ConfigError
from metarun.core.tasks import EpisodeShape

Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]
Floats = NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


class EpisodeIndices(NamedTuple):
    """Classes, images and labels of B episodes.

    Shapes: classes [B, N]; support and support_y [B, S], class by class; query and query_y [B, M], shuffled.
    `support` and `query` hold numbers of images inside their class, from 0; `rotation` [B, N] holds random numbers in
    0..3.
    """

    classes: Ints
    rotation: Ints
    support: Ints
    support_y: Ints
    query: Ints
    query_y: Ints


def draw_episodes(
    seed: int,
    stream: str,
    indices: Ints,
    class_sizes: Ints,
    shape: EpisodeShape,
    groups: Sequence[Ints] | None = None,
    fixed: bool = False,
) -> EpisodeIndices:
    """Draw the episodes with the numbers `indices` [B] of a stream over classes with `class_sizes` [C] images each.

    The drawn classes get the labels 0..N-1 in random order. Support and query images are distinct. With `groups` of
    classes, an episode draws one group, each with equal probability, and takes all its classes from this group. With
    `fixed`, class number c has the label c mod N in all episodes: one class of each label is drawn.

    An episode of unbalanced queries has the classes and the support images of the balanced one.
    """
    n_way = shape.n_way

    def choose(bits: Bits) -> Ints:
        n_tasks = len(bits)
        if fixed:
            sizes = (len(class_sizes) - np.arange(n_way) + n_way - 1) // n_way  # classes of each label
            drawn = draw_distinct(bits.reshape(-1, 1), np.tile(sizes, n_tasks))
            classes: Ints = drawn.reshape(n_tasks, n_way) * n_way + np.arange(n_way)
            return classes
        if groups is None:
            return draw_distinct(bits, np.full(n_tasks, len(class_sizes)))
        group = draw_distinct(draw_bits(seed, f"{stream}/group", indices, 1), np.full(n_tasks, len(groups)))
        return _draw_members(bits, group[:, 0], groups)

    return _draw_tasks(seed, stream, indices, class_sizes, shape, choose)


def draw_stream(
    seed: int,
    stream: str,
    index: int,
    class_sizes: Ints,
    n_tasks: int,
    shape: EpisodeShape,
    groups: Sequence[Ints] | None = None,
) -> EpisodeIndices:
    """Draw stream number `index` of a stream of streams: T tasks that come one after the other, and share no class.

    With `groups` of classes, each task takes its classes from a group of its own.

    Raises: ConfigError if there are too few classes, or groups.
    """
    large = None if groups is None else [group for group in groups if len(group) >= shape.n_way]
    have = len(class_sizes) // shape.n_way if large is None else len(large)
    if n_tasks > have:
        raise ConfigError(
            f"a stream of {n_tasks} tasks with {shape.n_way} classes each that share none: split '{stream}' has "
            f"classes for {have}. Set fewer tasks, or fewer classes for each"
        )
    stream = f"{stream}/stream"

    def choose(bits: Bits) -> Ints:
        if large is None:
            return draw_distinct(bits.reshape(1, -1), np.array([len(class_sizes)])).reshape(n_tasks, -1)
        group_bits = draw_bits(seed, f"{stream}/group", np.array([index]), n_tasks)
        return _draw_members(bits, draw_distinct(group_bits, np.array([len(large)]))[0], large)

    return _draw_tasks(seed, stream, index * n_tasks + np.arange(n_tasks), class_sizes, shape, choose)


def _draw_members(bits: Bits, group: Ints, groups: Sequence[Ints]) -> Ints:
    """Draw different members [B, N] of the groups number `group` [B] by random words [B, N]."""
    sizes = np.array([len(members) for members in groups])
    starts = np.cumsum(sizes) - sizes
    members: Ints = np.concatenate(groups)[starts[group][:, None] + draw_distinct(bits, sizes[group])]
    return members


def _draw_tasks(
    seed: int, stream: str, indices: Ints, class_sizes: Ints, shape: EpisodeShape, choose: Callable[[Bits], Ints]
) -> EpisodeIndices:
    """Draw the tasks of which `choose` makes the classes [B, N] from random words [B, N]."""
    n_way, k_shot, n_query = shape.n_way, shape.k_shot, shape.n_query
    n_tasks, per_class = len(indices), k_shot + n_query
    bits = draw_bits(seed, stream, indices, n_way * (2 + per_class + n_query))
    class_bits, rotation_bits, image_bits, order_bits = np.split(
        bits, np.cumsum([n_way, n_way, n_way * per_class]), axis=1
    )
    classes = choose(class_bits)
    if more := shape.most_queries - n_query:
        more_bits = draw_bits(seed, f"{stream}/more", indices, n_way * more).reshape(n_tasks, n_way, more)
        image_bits = np.concatenate([image_bits.reshape(n_tasks, n_way, per_class), more_bits], axis=2)
    images = draw_distinct(image_bits.reshape(n_tasks * n_way, -1), class_sizes[classes].reshape(-1))
    images = images.reshape(n_tasks, n_way, -1)
    support_y = np.broadcast_to(np.repeat(np.arange(n_way), k_shot), (n_tasks, n_way * k_shot))
    counts = np.full((n_tasks, n_way), n_query)
    if shape.alpha is not None:
        counts = share_out(draw_bits(seed, f"{stream}/shares", indices, 2 * n_way), shape.alpha, n_way * n_query)
    ends = counts.cumsum(1)  # [B, N]
    place = np.arange(n_way * n_query)
    query_y = (place >= ends[:, :, None]).sum(1)  # [B, M], class by class
    which = k_shot + place - np.take_along_axis(ends - counts, query_y, axis=1)  # [B, M], among the class's images
    query = images[np.arange(n_tasks)[:, None], query_y, which]
    order = np.argsort(order_bits, axis=1, kind="stable")  # batch statistics must not meet the queries sorted by class
    return EpisodeIndices(
        classes,
        (rotation_bits >> np.uint64(62)).astype(np.int64),
        images[:, :, :k_shot].reshape(n_tasks, -1),
        support_y.copy(),
        np.take_along_axis(query, order, axis=1),
        np.take_along_axis(query_y, order, axis=1),
    )


def share_out(bits: Bits, alpha: float, total: int) -> Ints:
    """Share out `total` queries among N classes by a Dirichlet distribution: [B, N] from bits [B, 2 N].

    Shares are Gamma(alpha) draws over their sum, and become whole numbers by their largest remainders.

    Reference: Veilleux, Boudiaf, Piantanida, Ben Ayed. Realistic Evaluation of Transductive Few-Shot Learning. NeurIPS
        2021. arXiv:2204.11181, section 3.
    """
    from scipy.special import gammaincinv, softmax  # takes time to import

    one, other = np.split(scale_to_unit(bits) + 2.0**-54, 2, axis=1)  # in (0, 1)
    # Gamma(alpha) is Gamma(alpha + 1) U^(1/alpha); as logarithms, because a small alpha makes tiny numbers.
    exact = total * softmax(np.log(gammaincinv(alpha + 1, one)) + np.log(other) / alpha, axis=1)
    counts: Ints = np.floor(exact).astype(np.int64)
    left = total - counts.sum(1, keepdims=True)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1)  # 0: the largest remainder
    counts[rank < left] += 1
    return counts


def draw_examples(seed: int, stream: str, indices: Ints, n: int) -> Ints:
    """Return the numbers of the examples [R] at the places `indices` [R] of a stream of n examples.

    The stream goes through all n examples again and again, each time in a new random order.
    """
    epochs, places = np.divmod(indices, n)
    out = np.empty_like(indices)
    for epoch in np.unique(epochs):
        out[epochs == epoch] = _permutation(seed, stream, int(epoch), n)[places[epochs == epoch]]
    return out


def draw_members(seed: int, stream: str, indices: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Return the class [R] and the number in its class [R] of each example at the places `indices` [R] of a stream.

    Args:
        sizes: number of examples of each class; the stream is of all of them, as that of `draw_examples`.
    """
    ends = np.cumsum(sizes)  # [classes]
    number = draw_examples(seed, stream, indices, int(ends[-1]))  # [R], among the examples of all classes
    label = np.searchsorted(ends, number, side="right")  # [R]
    return label, number - (ends - sizes)[label]


def iterate_places(first: int, batch_size: int) -> Iterator[Ints]:
    """Yield the places first, first + 1, ... of a stream, `batch_size` [B] at a time, for ever."""
    for start in itertools.count(first, batch_size):
        yield np.arange(start, start + batch_size)


def hash_episodes(drawn: EpisodeIndices) -> str:
    """Return a hash of the classes and examples that tasks were drawn from."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in drawn)).hexdigest()


@lru_cache(maxsize=2)
def _permutation(seed: int, stream: str, epoch: int, n: int) -> Ints:
    return np.argsort(draw_bits(seed, stream, np.array([epoch]), n)[0], kind="stable")


def draw_bits(seed: int, stream: str, indices: Ints, n: int) -> Bits:
    """Return `n` random 64-bit words for each of the episodes `indices` [B] of a stream: [B, n]."""
    key = np.frombuffer(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], np.uint64)
    episode = _mix(key + _GAMMA * (indices.astype(np.uint64) + np.uint64(1)))
    counter = _GAMMA * np.arange(1, n + 1, dtype=np.uint64)
    return _mix(episode[:, None] + counter)


def scale_to_unit(bits: Bits) -> Floats:
    """Turn each random word into a number in [0, 1) by its 53 highest bits, as many as a float64 holds."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_distinct(bits: Bits, population: Ints) -> Ints:
    """Draw, for each row r, k different numbers below population[r] in random order: [R, k] from bits [R, k].

    These are the first k swaps of a Fisher-Yates shuffle. They are followed backwards instead of being carried out, so
    the cost does not depend on the population.
    """
    k = bits.shape[1]
    first = np.arange(k)
    span = (population[:, None] - first).astype(np.uint64)
    swap = first + (((bits >> np.uint64(32)) * span) >> np.uint64(32)).astype(np.int64)  # swap[:, t] in t..population-1
    chosen = swap.copy()
    for t in range(k - 2, -1, -1):
        later = chosen[:, t + 1 :]
        later[later == swap[:, t : t + 1]] = t  # step t had moved element t to where this one came from
    return chosen


def _mix(z: Bits) -> Bits:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
