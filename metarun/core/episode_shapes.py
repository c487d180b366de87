"""Draw tasks of many shapes: the numbers of ways, shots and queries are functions of (seed, stream, i) too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from metarun.core.episodes import (
    Bits,
    EpisodeIndices,
    Ints,
    draw_bits,
    draw_distinct,
    draw_episodes,
    hash_episodes,
    scale_to_unit,
)
from metarun.core.tasks import EpisodeShape

MOST_SUPPORT, MOST_SHOTS = 500, 100
"""Support images of a task, and of its classes before they are shared out, as in Meta-Dataset."""


def draw_shaped_episode(
    seed: int,
    stream: str,
    index: int,
    class_sizes: Ints,
    shape: EpisodeShape,
    groups: Sequence[Ints] | None = None,
) -> tuple[EpisodeIndices, int]:
    """Draw episode number `index` of a stream, whose ways or shots vary: B = 1, and its n_way.

    The number of ways is uniform in n_way..most_ways, as far as there are classes. With `by_size`, all classes have
    the same number of queries: n_query, or half of the smallest class. The support set is a share, uniform in (0, 1],
    of what is left of the classes, and the larger classes get more of it, up to twice or half as much by chance.

    Args: as draw_episodes; class_sizes [C].
    Reference: Triantafillou et al. Meta-Dataset. ICLR 2020. arXiv:1903.03096, section 3.2.
    """
    one = np.array([index])
    pool = np.arange(len(class_sizes))
    if groups is not None:
        pool = groups[int(draw_distinct(draw_bits(seed, f"{stream}/group", one, 1), np.array([len(groups)]))[0, 0])]
    most = min(shape.most_ways or shape.n_way, len(pool))
    u = scale_to_unit(draw_bits(seed, f"{stream}/shape", one, 2))[0]
    n_way = shape.n_way + int(u[0] * (most - shape.n_way + 1))
    words = draw_bits(seed, stream, one, 2 * n_way)
    classes = pool[draw_distinct(words[:, :n_way], np.array([len(pool)]))]  # [1, N]
    sizes = class_sizes[classes[0]]  # [N]
    shots, n_query = np.full(n_way, shape.k_shot), shape.n_query
    if shape.by_size:
        n_query = min(n_query, int(sizes.min()) // 2)
        shots = share_shots(sizes, n_query, 1 - u[1], draw_bits(seed, f"{stream}/shots", one, n_way))
    rank = _shuffle_images(draw_bits(seed, f"{stream}/images", one, n_way * int(sizes.max())), sizes)  # [N, most]
    support_y = np.repeat(np.arange(n_way), shots)
    query_y = np.tile(np.arange(n_way), n_query)
    place = np.concatenate([np.arange(k) for k in shots])
    order = np.argsort(draw_bits(seed, f"{stream}/order", one, len(query_y))[0], kind="stable")
    query_y = query_y[order]
    which = shots[query_y] + order // n_way  # behind the class's support images
    return EpisodeIndices(
        classes,
        (words[:, n_way:] >> np.uint64(62)).astype(np.int64),
        rank[support_y, place][None],
        support_y[None],
        rank[query_y, which][None],
        query_y[None],
    ), n_way


def share_shots(sizes: Ints, n_query: int, share: float, bits: Bits) -> Ints:
    """Share out a support set among N classes: shots [N], 1 at least, by the classes' sizes [N] and bits [1, N].

    Args:
        n_query: query images of each class, which are not in the support set.
        share: of what is left of the classes that the support set takes, in (0, 1] (beta in the paper).
    """
    left = sizes - n_query
    in_all = min(MOST_SUPPORT, int(np.ceil(share * np.minimum(MOST_SHOTS, left)).sum()))
    weights = np.exp(np.log(0.5) + scale_to_unit(bits)[0] * np.log(4.0)) * sizes
    wanted = np.floor(weights / weights.sum() * max(in_all - len(sizes), 0)).astype(np.int64) + 1
    shots: Ints = np.minimum(wanted, left)
    return shots


def draw_by_shape(
    seed: int,
    stream: str,
    indices: Ints,
    class_sizes: Ints,
    shape: EpisodeShape,
    groups: Sequence[Ints] | None = None,
    fixed: bool = False,
) -> list[tuple[EpisodeIndices, int]]:
    """Draw episodes as `draw_episodes`, all in one part or, if their shapes vary, one by one; each with its n_way."""
    if not shape.varies:
        return [(draw_episodes(seed, stream, indices, class_sizes, shape, groups, fixed), shape.n_way)]
    return [draw_shaped_episode(seed, stream, int(index), class_sizes, shape, groups) for index in indices]


def hash_parts(parts: Sequence[tuple[EpisodeIndices, int]]) -> str:
    """Return a hash of the classes and examples that tasks were drawn from."""
    hashes = [hash_episodes(drawn) for drawn, _ in parts]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _shuffle_images(bits: Bits, sizes: Ints) -> Ints:
    """Return the numbers of each class's images in random order [N, most], those of smaller classes filled up."""
    most = int(sizes.max())
    words = bits.reshape(len(sizes), most)
    beyond = np.arange(most) >= sizes[:, None]
    return np.argsort(np.where(beyond, np.iinfo(np.uint64).max, words), axis=1, kind="stable")
