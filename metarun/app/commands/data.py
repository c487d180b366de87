"""The data sets there are: what of them is at hand, preparing one ahead of its runs, a look at its first tasks."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from metarun.app.commands.files import write
from metarun.app.messages import show_messages
from metarun.core.cached import EMBEDDINGS
from metarun.core.errors import ConfigError
from metarun.core.screen import Facts, Screen
from metarun.report.listing import format_size
from metarun.settings.at_hand import find_files, read_source_settings
from metarun.settings.compose import compose
from metarun.settings.conf import CONF
from metarun.settings.explain import find_title
from metarun.settings.schema import Settings


def run_data(parser: argparse.ArgumentParser, arguments: Sequence[str], screen: Screen) -> int:
    """Run `metarun data ...` and return the exit code. Raises: ConfigError for wrong input."""
    parser.description = "List the data sets, prepare one, or draw its first tasks."
    parser.add_argument("action", nargs="?", choices=("list", "prepare", "show"), default="list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="as in data=NAME")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as data.image_size=64")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder of your own YAML files")
    parser.add_argument("--split", choices=("train", "val", "test"), help="show: default: train, or test alone")
    parser.add_argument("--tasks", type=int, default=3, metavar="N", help="show: tasks to draw; default: 3")
    parser.add_argument("--out", type=Path, metavar="FILE", help="show: a PNG file; default: NAME.png")
    asked = parser.parse_args(arguments)
    own = [asked.config_dir.absolute()] if asked.config_dir else []
    if asked.action == "list":
        _list(own, screen)
        return 0
    if asked.name is None:
        raise ConfigError(f"metarun data {asked.action} needs a NAME; metarun data lists them")
    config = compose([f"data={asked.name}", *asked.overrides], own)
    from metarun.settings.resolve import resolve

    with show_messages(screen):
        settings = resolve(config, own=list(map(str, own)))
        if asked.action == "prepare":
            _prepare(settings, asked.name, screen)
        else:
            _show(settings, asked.name, asked.split, asked.tasks, asked.out or Path(f"{asked.name}.png"), screen)
    return 0


def _list(own: list[Path], screen: Screen) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("data=", no_wrap=True)
    table.add_column("what")
    table.add_column("at hand", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    sources = (file for folder in (CONF, *own) for file in (folder / "data").glob("*.yaml"))
    files = sorted(sources, key=lambda file: file.stem)
    config = compose([])
    for file in files:
        node = read_source_settings(file, config, own)
        place, found = _describe_presence(node, Path(config.paths.data).expanduser())
        table.add_row(file.stem, Text(find_title(file)), Text(place), _measure_size(found))
    screen.print(table)
    cache = Path(config.paths.cache).expanduser()
    caches = sorted(cache.glob("*.safetensors"))
    embedded = [file for file in caches if file.name.startswith(EMBEDDINGS)]
    if images := [file for file in caches if file not in embedded]:
        screen.print(_make_cache_table(images))
    if embedded:
        screen.print(f"embeddings by {len(embedded)} networks: {_measure_size(embedded)}, {cache}/{EMBEDDINGS}*")
    screen.print(f"data sets are looked for in {config.paths.data}, decoded images in {cache}")


def _describe_presence(node: Mapping[str, Any], root: Path) -> tuple[str, list[Path]]:
    """Describe in words where the files of a source are, and list these files or folders."""
    found = find_files(node)
    if found is None:
        return "made by the program", []  # or of other sources
    if not found:
        return ("where data.path says" if node.get("path", "") is None else "no"), []
    first, *others = (str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in found)
    return ", ".join([first, *(Path(other).name for other in others)]), found


def _make_cache_table(files: Sequence[Path]) -> Table:
    from safetensors import SafetensorError, safe_open

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("decoded images")
    for head in ("classes", "images", "shape", "size", "sha256"):
        table.add_column(head, justify="right", no_wrap=True)
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                count, *shape = file.get_slice("pixels").get_shape()
                tables = file.metadata()
        except (SafetensorError, OSError):
            table.add_row(path.name, "damaged: made again when it is opened")
            continue
        classes, digest = len(json.loads(tables["names"])), tables.get("sha256", "")  # of files written before: none
        table.add_row(path.name, str(classes), str(count), "x".join(map(str, shape)), format_size(path), digest[:12])
    return table


def _prepare(settings: Settings, name: str, screen: Screen) -> None:
    started = time.perf_counter()
    source = _open(settings)
    seconds = time.perf_counter() - started
    classes = source.info.facts.get("classes", {})
    facts = Facts()
    facts.add("data", f"{name}, ready in {seconds:.1f} s")
    facts.add("inputs", "x".join(map(str, source.info.input_shape)))
    facts.add("classes", ", ".join(f"{split} {count}" for split, count in classes.items()))
    facts.add("split", f"sha256 {source.info.split_sha256}")
    if hasattr(source, "pixels"):
        pixels = source.pixels.numpy()
        facts.add("images", f"{len(pixels)}, sha256 {hashlib.sha256(pixels).hexdigest()}")
    facts.show(screen)


def _show(settings: Settings, name: str, split: str | None, n_tasks: int, out: Path, screen: Screen) -> None:
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"cannot write {out}: there is no folder {out.parent}")
    from metarun.app.jobs.pictures import name_classes
    from metarun.run.tracking.pictures import draw_tasks

    source = _open(settings)
    if not hasattr(source, "episodes"):
        raise ConfigError(f"the tasks of {name} are environments, of which there is nothing to draw before one acts")
    split = split or ("test" if source.info.facts.get("classes", {}).get("train") == 0 else "train")
    names = name_classes(source, split, n_tasks)
    picture = draw_tasks(next(source.episodes(split, 0, n_tasks)), n_tasks, names, None, source.info.normalisation)
    if picture is None:
        raise ConfigError(f"the inputs of {name} are no images: {source.info.input_shape}")
    file = io.BytesIO()
    picture.save(file, "PNG")
    write(out, file.getvalue())
    screen.print(f"the first {n_tasks} {split} tasks of {name}: {out}")
    for index, labels in enumerate(names):
        listed = ", ".join(f"{label} {text}" for label, text in enumerate(labels))
        screen.print(f"task {index}: {listed}")


def _open(settings: Settings) -> Any:
    """Build the source on the CPU."""
    import torch

    from metarun.settings.build import build_source

    return build_source(settings, torch.device("cpu"))


def _measure_size(found: Sequence[Path]) -> str:
    files = (file for path in found for file in (path.rglob("*") if path.is_dir() else [path]))
    total = sum(file.stat().st_size for file in files if file.is_file())  # not of links that lead nowhere
    return f"{total / 1e6:.0f} MB" if found else ""
