"""What a pickle asks for beside arrays and containers is never called."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.data.files.unpickle import HARMLESS, unpickle

CALLED = [  # of the modules that arrays and containers come from, and of others
    ("numpy", "fromfile"),
    ("numpy", "load"),
    ("numpy", "savetxt"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy._core.multiarray", "fromstring"),
    ("numpy._core.numeric", "frompyfunc"),
    ("collections", "namedtuple"),
    ("collections", "Counter"),
    ("_codecs", "decode"),
    ("_codecs", "register"),
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("__builtin__", "eval"),  # as Python 2 calls it
]


def asking_for(module: str, name: str, argument: str) -> bytes:
    """The pickle of `module.name(argument)`."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


@pytest.mark.parametrize(("module", "name"), CALLED)
def test_every_other_function_is_refused_before_it_is_called(tmp_path: Path, module: str, name: str) -> None:
    (tmp_path / "a.pkl").write_bytes(asking_for(module, name, "x"))
    with pytest.raises(ValueError, match=rf"a.pkl is not used: it would call {module}.{name}, which no data set needs"):
        unpickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(("module", "name"), sorted(HARMLESS))
def test_a_method_of_what_is_harmless_is_refused(tmp_path: Path, module: str, name: str) -> None:
    """By protocol 4, in which a dotted name stands for an attribute."""
    parts = [text.encode() for text in (module, f"{name}.__init__")]
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text for text in parts)
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + texts + b"\x93.")
    with pytest.raises(ValueError, match=rf"it would call {module}.{name}.__init__, which no data set needs"):
        unpickle(tmp_path / "a.pkl")


def test_a_refused_function_has_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(asking_for("builtins", "eval", f"open({str(tmp_path / 'ran')!r}, 'w')"))
    with pytest.raises(ValueError, match=r"it would call builtins.eval"):
        unpickle(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()
