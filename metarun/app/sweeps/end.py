"""How a sweep ends: its runs compared on the screen, as files in its folder, and in its runs' dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from metarun.core.command import quote
from metarun.core.screen import Screen
from metarun.core.whole import write_bytes
from metarun.report.compare import Comparison, compare
from metarun.report.formats import format_csv, format_seed_csv
from metarun.report.runs import Run, find_runs
from metarun.report.tables import make_tables
from metarun.run.tracking.sink import RunInfo


def conclude(folder: Path, config: DictConfig, screen: Screen) -> None:
    """Compare the finished runs of the sweep in `folder`; `config` holds the settings that all jobs share."""
    finished = [run for run in find_runs([folder]) if run.state == "finished"]
    if len(finished) > 1:
        comparisons, notes = compare(finished, None, ["seed"], None, None)
        screen.print()
        for part in [*make_tables(comparisons, screen.width), *notes]:
            screen.print(part)
        files = _write(folder, comparisons, notes)
        screen.say(f"with figures, as a page: {files[-1]}")
        if config.hydra.runtime.choices.logger != "none":
            _share(folder, config, finished, files, screen)
    screen.say(f"again, in other ways: metarun compare {quote(folder)}")


def _write(folder: Path, comparisons: Sequence[Comparison], notes: Sequence[str]) -> list[Path]:
    """Write comparison.csv, .png and .html, and comparison-seeds.csv. The drawing library takes a second to import."""
    from metarun.report.figures import charts
    from metarun.report.figures.gallery import join_views, make_gallery, name_views
    from metarun.report.figures.page import render_page

    found = make_gallery(comparisons)
    write_bytes(folder / "comparison-seeds.csv", format_seed_csv(comparisons).encode())
    files = {".csv": format_csv(comparisons).encode()}
    if name_views(found):
        files[".png"] = charts.render_png(join_views(comparisons, found))
    files[".html"] = render_page(comparisons, found, notes, ["compare", folder]).encode()
    for suffix, content in files.items():
        write_bytes(folder / f"comparison{suffix}", content)
    return [folder / f"comparison{suffix}" for suffix in files]


def _share(folder: Path, config: DictConfig, runs: Sequence[Run], files: Sequence[Path], screen: Screen) -> None:
    """Send the files to the dashboard as one more run of the sweep's group; a repeated sweep updates the same run."""
    from metarun.settings.build import build_logger

    ids = sorted(str(run.results["wandb_id"]) for run in runs if run.results.get("wandb_id"))
    info = RunInfo(
        name=f"comparison of {folder.name}",
        group=folder.resolve().name,
        kind="comparison",
        several=True,
        tags=[],
        config={"runs": len(runs)},
        folder=folder,
        id=f"comparison-{ids[0]}" if ids else None,
    )
    sink = build_logger(OmegaConf.to_container(config.logger, resolve=True), info)  # type: ignore[arg-type]
    for file in files:
        sink.show({".csv": "comparison", ".png": "figures", ".html": "report"}[file.suffix], file)
    sink.finish({"status": "finished"}, 0)
    for note in sink.notes:
        screen.say(note)
