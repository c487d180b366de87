"""What a command imports: only what it needs, for torch alone takes two seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import finished

TORCH, HYDRA, FIGURES = "torch", "hydra", "altair"
COMPILERS = ("torch._dynamo", "torch._inductor", "sympy", "torchvision")

COMMANDS = {  # by what is typed: modules that it does without
    "--version": (TORCH, HYDRA, FIGURES, "rich"),
    "--help": (TORCH, HYDRA, FIGURES),
    "help boil": (TORCH, HYDRA, FIGURES),
    "list .": (TORCH, HYDRA, FIGURES, "scipy"),
    "show run": (TORCH, HYDRA, FIGURES, "scipy"),
    "compare .": (TORCH, HYDRA, FIGURES),
    "eval --help": (TORCH, HYDRA, FIGURES),
    "eval nothing": (TORCH, HYDRA, FIGURES),
    "predict --help": (TORCH, HYDRA, FIGURES),
    "resume --help": (TORCH, HYDRA, FIGURES),
    "export nothing": (TORCH, HYDRA, FIGURES),
    "algo=mamml": (TORCH, FIGURES),
    "algo.lr=1": (TORCH, FIGURES),
    "seed=a": (TORCH, FIGURES),
    "run.steps=-1": (*COMPILERS, FIGURES),
    "data": (TORCH, FIGURES, "scipy"),
    "data prepare nothing": (TORCH, FIGURES),
}


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_command_imports_no_more_than_it_needs(typed: str, tmp_path: Path) -> None:
    finished(tmp_path / "run", [0.4, 0.5, 0.6])
    told = f"""if True:
        import sys
        from metarun.cli import command
        command({typed.split()!r})
        found = [name for name in {COMMANDS[typed]!r} if name in sys.modules]
        sys.exit(f"imported: {{found}}" if found else 0)
    """
    done = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_run_says_what_it_does_before_torch_is_imported(tmp_path: Path) -> None:
    told = """if True:
        import sys, metarun.cli
        before, write = [], sys.stdout.write
        sys.stdout.write = lambda text: (before.append(("torch" in sys.modules, text)), write(text))[1]
        metarun.cli.command(["run.steps=-1"])
        assert before[0] == (False, before[0][1]) and before[0][1].startswith("maml on glyphs, 5-way 1-shot"), before
    """
    done = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
