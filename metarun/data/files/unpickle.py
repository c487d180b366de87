"""Pickles of arrays and plain containers, read without running any other code that a pickle names."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
"""Functions and classes that rebuild arrays and containers."""


def unpickle(path: Path) -> Any:
    """Read the arrays and containers in a pickle of Python 2 or 3, as `unpickle_open` does."""
    with open(path, "rb") as file:
        return unpickle_open(file, str(path))


def unpickle_open(file: IO[bytes], name: str) -> Any:
    """Read the arrays and containers in an open pickle, which messages call `name`.

    Raises: ValueError if it is damaged, or names a class or function that is not in `HARMLESS`.
    """
    try:
        return _Arrays(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{name} is not used: {error}") from error
    except (EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError, MemoryError) as error:
        raise ValueError(f"{name} is no whole pickle ({error}); get it again") from error


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it would call {module}.{name}, which no data set needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
