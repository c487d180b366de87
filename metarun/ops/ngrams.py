"""Vectors of texts: counts of their character n-grams, hashed into buckets."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hash_ngrams(texts: Sequence[str], buckets: int, lengths: Sequence[int]) -> NDArray[np.float32]:
    """Return a vector of length 1 for each text: [R, buckets]; all zeros for a text without n-grams.

    A text is composed (NFC), in small letters, with one blank between words and at either end. Each n-gram adds 1 or
    -1 to a bucket; both come of its CRC-32, so that vectors are the same on every machine. Two n-grams that share a
    bucket cancel as often as they add up, so scalar products are those of the exact counts on average.

    Reference: Weinberger, Dasgupta, Langford, Smola, Attenberg. Feature Hashing for Large Scale Multitask Learning.
        ICML 2009. arXiv:0902.2206, equation 1.
    """
    out = np.zeros((len(texts), buckets), np.float32)
    known: dict[str, tuple[int, int]] = {}
    for row, text in enumerate(texts):
        plain = f" {' '.join(unicodedata.normalize('NFC', text).lower().split())} "
        for length in range(lengths[0], lengths[1] + 1):
            for first in range(len(plain) - length + 1):
                gram = plain[first : first + length]
                if gram not in known:
                    word = zlib.crc32(gram.encode())
                    known[gram] = (word >> 1) % buckets, 1 - 2 * (word & 1)
                bucket, sign = known[gram]
                out[row, bucket] += sign
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    norms[norms == 0] = 1
    out /= norms
    return out
