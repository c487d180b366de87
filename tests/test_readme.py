"""What README shows works."""

from __future__ import annotations

import re
from pathlib import Path

from commands import TINY, metarun, results_of

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_algorithm_shown_whole_runs(tmp_path: Path, cache: Path) -> None:
    blocks = re.findall(r"```\w+\n(# (\S+)\n.*?)```", README, re.S)
    assert [name for _, name in blocks] == ["soft_neighbour.py", "mine/algo/soft_neighbour.yaml"]
    for text, name in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    typed = re.search(r"metarun (--config-dir mine .*)", README)
    assert typed
    code, out, error = metarun(*typed[1].split(), *TINY, "hydra.run.dir=r", cwd=tmp_path, cache=cache)
    assert code == 0, out + error
    assert results_of(tmp_path / "r")["algo"] == "soft_neighbour"


def test_the_two_commands_of_a_new_user_are_there() -> None:
    assert re.findall(r"^ *pip install uv && (.*)$", README, re.M) == ["uv run metarun", "uv run pytest"]
