"""The page of a comparison: complete in itself, true to the comparison, safe, and readable at any width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import finished, settings
from test_figures import SCORES, size_of, sweep_of

from metarun.cli import command
from metarun.report.compare import compare
from metarun.report.runs import find_runs
from metarun.report.tables import make_caption, make_cells

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

WIDTHS = (1280, 390)


class Parsed(HTMLParser):
    """What a browser would see: tags with their attributes, the text of cells and list items, the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"td": [], "th": [], "li": [], "h1": [], "h3": [], "figcaption": []}
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        for tag in self.inside:
            if tag in self.texts:
                self.texts[tag][-1] += data

    def data(self) -> list[Any]:
        return [json.loads(text) for attrs, text in self.scripts if attrs.get("type") == "application/json"]


def page_of(folder: Path, *arguments: str) -> tuple[str, Parsed]:
    file = folder / "report.html"
    assert command(["compare", str(folder), "--html", str(file), *arguments]) == 0
    page = file.read_text(encoding="utf-8")
    return page, Parsed(page)


@pytest.fixture
def two_tables(tmp_path: Path) -> Path:
    """Two algorithms with two seeds each, at one and at five shots."""
    for shots in (1, 5):
        for seed in (0, 1):
            for place, name in enumerate(("maml", "protonet")):
                scores = SCORES + 0.02 * seed + 0.1 * place + 0.03 * shots
                config = settings(name.upper(), 0.4 - place / 10, seed=seed)
                episodes = {"k_shot": shots, "episode_sha256": str(shots) * 64}
                finished(tmp_path / f"{name}{shots}{seed}", scores, name, seed, config, **episodes)
    return tmp_path


def test_a_page_says_where_runs_lie_to_those_alone_who_have_them(
    two_tables: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From here how to get there; from elsewhere the name of the folder alone."""
    for here, said in ((two_tables.parent, two_tables.name), (tmp_path_factory.mktemp("elsewhere"), two_tables.name)):
        monkeypatch.chdir(here)
        assert f"A line for each of the 8 runs, in {said}</p>" in page_of(two_tables)[0]
    (two_tables / "deep").mkdir()
    for run in [run for run in two_tables.iterdir() if (run / "results.json").exists()]:
        run.rename(two_tables / "deep" / run.name)
    monkeypatch.chdir(two_tables.parent)
    assert f"A line for each of the 8 runs, in {two_tables.name}/deep</p>" in page_of(two_tables)[0]


def test_the_page_loads_nothing_and_its_scripts_parse(two_tables: Path) -> None:
    page, parsed = page_of(two_tables)
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base"), tag
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert len(styles) == 1
    assert not re.search(r"url\(|@import", styles[0])
    policy = next(attrs for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none';")
    *specs, datasets = parsed.data()
    assert len(specs) == 4 + 4 + 1
    used = set(re.findall(r'"data": {"name": "([\w-]+)"}', json.dumps(specs)))
    assert used == set(datasets)


def test_the_numbers_of_the_page_are_those_of_the_comparison(two_tables: Path) -> None:
    _, parsed = page_of(two_tables, "--baseline", "algo=maml")
    comparisons, _ = compare(find_runs([two_tables]), None, ["seed"], "accuracy", {"algo": "maml"})
    shown, heads, items = parsed.texts["td"], parsed.texts["th"], parsed.texts["li"]
    for comparison in comparisons:
        columns, lines = make_cells(comparison)
        for line in lines:
            assert shown[: len(line)] == line
            shown = shown[len(line) :]
        assert heads[: len(columns)] == columns
        heads = heads[len(columns) :]
        assert set(make_caption(comparison)) <= set(items)
    runs = [run for comparison in comparisons for row in comparison.rows for run in row.group.runs]
    assert heads == ["table", "accuracy %", "algo", "seed", "algo.inner_lr", "run"]
    lines = [shown[start : start + len(heads)] for start in range(0, len(shown), len(heads))]
    assert [line[-1] for line in lines] == [run.folder.name for run in runs]
    assert [line[0] for line in lines] == ["1"] * 4 + ["2"] * 4
    for line, run in zip(lines, runs, strict=True):
        scores = run.task_scores("accuracy")
        assert scores is not None
        assert line[1] == f"{100 * scores[1].mean():.2f}"
        assert line[2:5] == [str(run.value(key)) for key in ("algo", "seed", "algo.inner_lr")]


def test_what_comes_from_runs_cannot_become_code(tmp_path: Path) -> None:
    """A name that would end a script, open a tag and break a string, in every place that shows one."""
    evil = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"&"
    for number, name in enumerate((evil, "maml")):
        config = settings(lr=0.1 * (number + 1))
        config["data"]["font"] = f"{evil}{number}"
        finished(tmp_path / f"<b>run{number}", SCORES + number / 10, name, config=config, overrides=[evil])
        finished(tmp_path / f"5{number}", SCORES, name, config=config, k_shot=5, episode_sha256=evil, bn=evil)
    page, parsed = page_of(tmp_path)
    assert evil not in page
    assert "<b>" not in page
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"img", "b"}
    assert evil in parsed.texts["td"]
    *specs, datasets = parsed.data()
    assert len(parsed.scripts) == len(specs) + 3
    assert any(point.get("group") == evil for records in datasets.values() for point in records)


def test_runs_left_out_are_said(two_tables: Path) -> None:
    finished(two_tables / "half", SCORES, status="interrupted")
    (two_tables / "maml10" / "test_tasks.npz").unlink()
    _, parsed = page_of(two_tables)
    assert parsed.texts["h1"] == ["Comparison of 7 runs"]
    said = "\n".join(parsed.texts["li"])
    assert "maml10 is left out: its test_tasks.npz is missing, damaged or changed" in said
    assert "runs that have not finished are left out: 1 interrupted" in said


def test_a_page_without_figures_has_no_holes(tmp_path: Path) -> None:
    (finished(tmp_path / "a", SCORES) / "metrics.jsonl").unlink()
    page, parsed = page_of(tmp_path)
    assert "<figure" not in page
    assert 'class="figures"' not in page
    assert "Across the tables" not in page
    assert "Settings that differ" not in page  # there is one run
    assert parsed.texts["td"][0] == f"{100 * SCORES.mean():.2f}"


def test_pictures_are_written_as_one_file_or_into_a_folder(two_tables: Path) -> None:
    file, folder = two_tables / "all.png", two_tables / "pictures"
    folder.mkdir()
    for path in (file, folder):
        assert command(["compare", str(two_tables), "--png", str(path)]) == 0
    assert min(size_of(file.read_bytes())) > 1000
    own = [
        f"{place}-{name}.png" for place in (1, 2) for name in ("scores", "curves-by-step", "curves-by-time", "tasks")
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*own, "shots.png"])
    assert all(250 < min(size_of(path.read_bytes())) < 2000 for path in folder.iterdir())


HOST = """<!doctype html><body>{frames}<script>
const frames = [...document.querySelectorAll("iframe")];
const counts = frame => [...frame.contentDocument.querySelectorAll("text")].map(text => text.textContent)
  .filter(text => text.startsWith("above the diagonal"));
const wait = done => new Promise(next => (function look() {{ done() ? next() : setTimeout(look, 50); }})());
(async () => {{
  await wait(() => frames.every(frame => frame.contentDocument?.body?.classList.contains("drawn")));
  const found = frames.map(frame => ({{
    width: frame.contentWindow.innerWidth,
    needed: frame.contentDocument.documentElement.scrollWidth,
    drawings: frame.contentDocument.querySelectorAll("figure svg.marks").length,
    wide: [...frame.contentDocument.querySelectorAll("figure svg.marks")].map(svg => svg.getBoundingClientRect().right),
    loaded: frame.contentWindow.performance.getEntriesByType("resource").length,
    counts: counts(frame),
  }}));
  const [across, up] = frames[0].contentDocument.querySelectorAll("select");
  across.value = up.value;
  across.dispatchEvent(new Event("input"));
  across.dispatchEvent(new Event("change"));
  await wait(() => counts(frames[0])[0] !== found[0].counts[0]);
  document.body.textContent = JSON.stringify({{found, same: counts(frames[0])[0]}});
}})();
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_everything_at_desktop_and_phone_width(two_tables: Path) -> None:
    """No error, nothing loaded, no page wider than the window, and the choice of groups works."""
    sweep_of(two_tables)
    _, parsed = page_of(two_tables)
    frames = "".join(f'<iframe src="report.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
    (two_tables / "host.html").write_text(HOST.format(frames=frames))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    profile = f"--user-data-dir={two_tables / 'profile'}"
    done = subprocess.run(
        [str(CHROMIUM), *flags, profile, "--virtual-time-budget=60000", "--dump-dom", f"file://{two_tables}/host.html"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    body = re.search(r"<body>(\{.*\})</body>", done.stdout, re.S)
    assert body, done.stdout[-2000:] + done.stderr[-2000:]
    seen = json.loads(body[1])
    for width, frame in zip(WIDTHS, seen["found"], strict=True):
        assert frame["width"] == width
        assert frame["needed"] <= width
        assert frame["drawings"] == len(parsed.data()) - 1
        assert max(frame["wide"]) <= width
        assert frame["loaded"] == 0
    assert seen["same"] == f"above the diagonal 0, on it {len(SCORES)}, below 0"
    for frame in seen["found"]:  # the best is drawn up, and its scores are all higher
        assert set(frame["counts"]) == {f"above the diagonal {len(SCORES)}, on it 0, below 0"}
