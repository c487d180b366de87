"""Passwords and tokens in addresses, which are typed and are not to be kept or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"

PASSWORD = re.compile(r"(?<=[A-Za-z\d]:/)(/?[^/\s:@]*):[^/\s@]+@")  # a path has one slash left of the two
TOKEN = re.compile(r"([?&](?:[\w.-]*(?:token|key|password|passwd|pwd|secret|signature)|sig|auth)=)[^&#\s'\"]+", re.I)


def mask(text: str) -> str:
    """Mask passwords in addresses, as in scheme://user:password@host, and tokens in their queries, as in ?token=..."""
    return TOKEN.sub(rf"\1{MASK}", PASSWORD.sub(rf"\1:{MASK}@", text)) if ":/" in text else text


def is_masked(value: Any) -> bool:
    """Return whether a password or token was masked in this text."""
    return isinstance(value, str) and ":/" in value and MASK in value


def describe_masked(keys: Sequence[str]) -> str:
    """Describe what to type for the settings with these keys, whose values were masked."""
    return f"the password in {keys[0]} is not kept with a run: add {'=... '.join(keys)}=... with it"


def mask_all(value: Any) -> Any:
    """Mask every text within lists and mappings."""
    if isinstance(value, Mapping):
        return {key: mask_all(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask_all(inner) for inner in value]
    return mask(value) if isinstance(value, str) else value
