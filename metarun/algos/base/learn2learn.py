"""Import learn2learn when it is first needed: it is optional and loads slowly."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Literal

from metarun.core.ranges import check_choice

IMPORTED = ("learn2learn", "gymnasium", "requests", "tqdm")
"""What learn2learn's modules import that does not come with torch or with us; pip installs it without them."""

Engine = Literal["auto", "vectorized", "learn2learn"]


def choose_engine(engine: str) -> str:
    """Return the engine to run. `auto` is `vectorized`, which was at least as fast in all measurements.

    Raises: ValueError if learn2learn is asked for and not installed, or the choice is unknown.
    """
    check_choice("algo.engine", engine, Engine)
    missing = [name for name in IMPORTED if importlib.util.find_spec(name) is None] if engine == "learn2learn" else []
    if "learn2learn" in missing:
        raise ValueError(
            "algo.engine=learn2learn needs learn2learn, which is not installed: uv sync, or the two lines of pip in "
            "metarun/README.md under `Without uv`; or set algo.engine=vectorized"
        )
    if missing:
        raise ValueError(
            f"algo.engine=learn2learn needs {' and '.join(missing)}, not installed here: pip install "
            f"{' '.join(missing)}; or set algo.engine=vectorized"
        )
    return "vectorized" if engine == "auto" else engine


def learn2learn() -> ModuleType:
    """Return the package learn2learn. It imports gym, which is no longer maintained; gymnasium takes its place."""
    if "learn2learn" not in sys.modules and "gym" not in sys.modules:
        import gymnasium  # noqa: F401

        for name in [name for name in sys.modules if name.split(".")[0] == "gymnasium"]:
            sys.modules["gym" + name.removeprefix("gymnasium")] = sys.modules[name]
    import learn2learn as package

    return package  # type: ignore[no-any-return]
