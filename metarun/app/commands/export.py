"""`metarun export`: the network of a trained run, as files for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from metarun.app.commands.screen import add_run, add_trust, announce
from metarun.core import tuning
from metarun.core.run_folder import RunFolder
from metarun.core.screen import Facts, Screen


def run_export(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun export RUN` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = "Write the network of a trained run: weights, a program of torch.export, and ONNX."
    add_run(parser)
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to; default: RUN/export")
    parser.add_argument("--bn", metavar="MODE", help="BatchNorm mode; default: the run's")
    add_trust(parser)
    asked = parser.parse_args(arguments)
    announce("exporting", asked.run, screen)
    with tuning.frozen_imports():
        from metarun.app.exported import describe_network, export_backbone
        from metarun.app.model import Model

    model = Model.load(asked.run, asked.bn, device="cpu", trust=asked.trust)
    folder = asked.to or RunFolder(asked.run).export
    said = export_backbone(model, folder)
    facts = Facts()
    for name, words in said.items():
        facts.add(name, words)
    screen.print(Text(f"written to {folder}/"))
    facts.show(screen)
    if warning := describe_network(model):
        screen.print(Text(warning))
    return 0
