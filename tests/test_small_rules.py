"""Rules of a line or two, each with both of its sides: what small functions answer, worked out by hand."""

from __future__ import annotations

import _thread
import csv
import io
import json
import logging
import re
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from run_folders import finished

from metarun.app.commands.rerun import describe_code
from metarun.app.jobs.describe import label_splits
from metarun.app.sweeps.accepted import _list_values
from metarun.core import command, lettering, machine, screen, words
from metarun.core.batches import merge_sides
from metarun.core.control import Control
from metarun.core.errors import find_nearest, name_choices
from metarun.core.identity import read_overrides, read_yaml, read_yaml_list
from metarun.core.memory import describe_lack_of_memory
from metarun.core.ranges import check_choice
from metarun.core.secrets import is_masked, mask, mask_all
from metarun.core.tasks import Batch, EpisodePlan, EpisodeShape, Examples, Pairs
from metarun.data.augment import Look
from metarun.data.bandits import Bandits
from metarun.data.counts import count_images, describe_images, join_counts
from metarun.data.files.copies import find_second_copies
from metarun.data.files.image_file import ImageFile
from metarun.data.files.shards import join_archives
from metarun.report.budget import describe_training, score_guess
from metarun.report.compare import compare
from metarun.report.figures.curves import draw_curves
from metarun.report.formats import format_csv, format_seed_csv
from metarun.report.narrow import choose_columns
from metarun.report.predicted import find_shared
from metarun.report.runs import Run, find_runs
from metarun.report.tables import format_setting
from metarun.run.by_source import estimate_by_source
from metarun.run.device import choose_device
from metarun.run.drawn import count_drawn
from metarun.run.few_tasks import FewTasks
from metarun.run.limits import Limits
from metarun.run.progress import Progress, average, read_numbers
from metarun.run.team import Group, Lost
from metarun.run.tracking import wandb_kept
from metarun.run.tracking.guarded import GuardedSink
from metarun.run.tracking.sink import NoSink, RunInfo
from metarun.run.tracking.wandb_environment import explain, find_obstacle
from metarun.run.tracking.wandb_file import find_last_row
from metarun.run.tracking.wandb_sink import _parse_number, end_service
from metarun.run.tracking.wandb_words import drop_equal, list_summary, list_tests, nest
from metarun.settings.conf import list_config_dirs
from metarun.settings.hydras import find_idle_words
from metarun.settings.looked_up import look_up
from metarun.settings.names import name_query, name_run

INFO = RunInfo("run", "group", "train", [], {}, Path())


def test_a_number_of_a_table_is_a_number_for_wandb_a_word_a_word_and_nothing_none() -> None:
    assert [_parse_number(word) for word in ("1.5", "maml", "")] == [1.5, "maml", None]


def test_the_last_row_in_wandbs_files_is_found_before_what_cannot_be_read(tmp_path: Path) -> None:
    """Rows 4 and 7, what is no record, and row 9, which is not read any more; another file has row 8."""
    from wandb.proto.wandb_internal_pb2 import Record

    def row(number: int) -> bytes:
        record = Record()
        record.history.step.num = number
        record.history.item.add().key = "step"
        return record.SerializeToString()

    def write(name: str, *contents: bytes) -> Path:
        records = b"".join(struct.pack("<IHB", 0, len(content), 1) + content for content in contents)
        (tmp_path / name).write_bytes(bytes(7) + records)
        return tmp_path / name

    broken = write("a", row(4), row(7), b"\xff\xff\xff", row(9))
    assert find_last_row([broken]) == 7
    assert find_last_row([broken, write("b", row(8), b"")]) == 8
    assert find_last_row([write("c")]) == 0


def test_an_error_of_wandb_comes_out_though_its_service_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def teardown() -> None:
        raise RuntimeError("killed")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(teardown=teardown))

    @end_service()
    def send() -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        send()


def test_stop_run_on_the_page_of_wandb_is_a_ctrl_c_in_the_main_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(_thread, "interrupt_main", lambda: stopped.append(1))
    wandb_kept.stop_run()
    assert stopped == [1]
    assert "somebody stopped the run on its page in W&B" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("a peer has gone"), ConnectionError("no")])
def test_a_process_that_ended_is_lost_and_another_error_is_itself(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def all_reduce(_: Any) -> None:
        raise error

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with pytest.raises(Lost if isinstance(error, RuntimeError) else ConnectionError):
        Group(0, 2).sum(torch.zeros(1))


def test_a_logger_that_fails_is_told_as_a_warning_and_a_wrong_setting_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Any:
        raise OSError("no server\nand more")

    with caplog.at_level(logging.INFO):
        sink = GuardedSink(fail, INFO)
    assert isinstance(sink.sink, NoSink)
    told = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert told == [
        ("WARNING", "the logger cannot start, and the run goes on without it: OSError: no server"),
        ("INFO", "the logger cannot start"),
    ]

    def refuse() -> Any:
        raise ValueError("mode=x")

    with pytest.raises(ValueError, match="mode=x"):
        GuardedSink(refuse, INFO)


@pytest.mark.parametrize("error", [RuntimeError("busy"), AssertionError("Torch not compiled with CUDA enabled")])
def test_a_device_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def empty(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"device=cuda cannot be used here; there is auto, cpu$"):
        choose_device("cuda")
    assert choose_device("cpu:7") == torch.device("cpu")


def test_a_command_has_a_quote_for_every_shell() -> None:
    """Words with a control character are in $'...', quotes and backslashes escaped; a dash would be a flag."""
    assert command.quote("it's\n\\x") == "$'it\\'s\\x0a\\\\x'"
    assert command.quote(Path("-out")) == "./-out"
    assert command.quote("-m") == "-m"
    assert command.join(["metarun", Path("a b")]) == "metarun 'a b'"
    assert command.keep_last(["+a=1", "b=2", "a=3", "~b"]) == ["+a=3", "~b"]


def test_text_in_a_picture_has_at_most_so_many_lines() -> None:
    """A letter is a pixel wide: lines of 8."""
    font: Any = SimpleNamespace(getlength=len)
    assert lettering.wrap("one two three four", 8, font, 3) == ["one two", "three", "four"]
    assert lettering.wrap("one two three four", 8, font, 2) == ["one two", "thr…four"]
    assert lettering.wrap("first/second", 8, font, 2) == ["first/", "second"]
    assert lettering.cut("abcdefgh", 5, font) == "ab…gh"
    assert lettering.cut("abcde", 5, font) == "abcde"


def test_cores_and_gpus_are_shared_out() -> None:
    """8 cores: 3 jobs at once have 2 cores each, 12 jobs one; with 2 GPUs two jobs run, on 4 cores each."""
    assert [
        machine.count_jobs_at_once(*asked)
        for asked in ((3, None, 8, 0), (12, None, 8, 0), (12, 2, 8, 0), (12, 2, 8, 2))
    ] == [3, 8, 4, 2]
    assert [
        machine.share_cores(*asked) for asked in ((3, None, 8, 0), (12, None, 8, 0), (12, 5, 8, 0), (12, None, 8, 2))
    ] == [2, 1, 5, 4]
    assert [machine.count_processes(tasks, places) for tasks, places in ((16, 6), (16, 8), (3, 8), (1, 0))] == [
        6,
        8,
        3,
        1,
    ]
    assert machine.count_processes(10, 6) == 5  # of two each: a sixth would help nobody


def test_a_sweep_counts_the_jobs_that_it_has_and_not_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from metarun.app.sweeps import launch

    monkeypatch.setattr(machine, "count_cores", lambda: 8)
    monkeypatch.setattr(machine, "list_gpus", lambda: [])
    monkeypatch.setenv(launch.JOBS, "2")
    assert launch._of_this_machine(machine.share_cores)("auto") == 4
    assert launch._of_this_machine(machine.count_jobs_at_once)(3) == 2
    monkeypatch.delenv(launch.JOBS)
    assert launch._of_this_machine(machine.share_cores)("auto") == 1


def test_of_a_large_grid_each_value_is_tried_beside_the_first_of_all_others() -> None:
    typed = ["optim.lr=1,2,3", "seed=5", "bn=a,b", "data.k_shot=interval(1,9)"]
    found = _list_values(OverridesParser.create().parse_overrides(typed))
    first = ["optim.lr=1", "seed=5", "bn=a", "data.k_shot=5.0"]
    assert found == [first, ["optim.lr=2", *first[1:]], ["optim.lr=3", *first[1:]], [*first[:2], "bn=b", first[3]]]


def test_what_was_typed_nearly_is_found() -> None:
    known = ["algo.inner_lr", "algo.inner_steps", "optim.lr", "data.k_shot"]
    assert [find_nearest(word, known) for word in ("algo.iner_lr", "algo.lr", "run.lr", "algo.steps", "xyz")] == [
        "algo.inner_lr", "optim.lr", "optim.lr", "algo.inner_steps", None,
    ]  # fmt: skip
    assert name_choices("mam", ["maml", "anil"], "algo") == "; did you mean maml?; choices are maml, anil"
    many = [f"choice{n}" for n in range(13)]
    assert name_choices("choice", many, "algo").endswith("metarun help algo lists all 13")
    assert name_choices("x", [], "algo") == ""


def test_a_lack_of_memory_blames_the_largest_numbers() -> None:
    typed = ["data.n_query=50000", "seed=123456", "backbone.hidden=[64,4000]", "run.steps=1000000", "data.k_shot=5"]
    said = describe_lack_of_memory(MemoryError("no\n more"), typed)
    assert said == "there is too little memory: make data.n_query=50000 or backbone.hidden=[64,4000] smaller (no more)"
    assert describe_lack_of_memory(RuntimeError("CUDA out of memory"), []) == (
        "there is too little memory: make the network or run.meta_batch_size smaller (CUDA out of memory)"
    )
    assert describe_lack_of_memory(RuntimeError("shapes differ"), typed) is None
    assert describe_lack_of_memory(ValueError("out of memory"), typed) is None


def test_secrets_are_masked_wherever_they_stand() -> None:
    assert mask("git://me:secret@host/x?token=abc&b=1") == "git://me:***@host/x?token=***&b=1"
    assert mask("a:b@c ?token=abc") == "a:b@c ?token=abc"
    assert mask_all({"a": ["x://u:p@h"], "b": ("x://u:p@h", 1)}) == {"a": ["x://u:***@h"], "b": ["x://u:***@h", 1]}
    assert [is_masked(value) for value in ("x://u:***@h", "***", 3)] == [True, False, False]


def test_words_for_sizes_tasks_and_times() -> None:
    assert [words.name_task(*one) for one in ((5, 1), ([5, 50], "by_size"), (0, 3), (5, None))] == [
        "5-way 1-shot", "5-50-way shots by class size", "3-shot", "",
    ]  # fmt: skip
    assert [words.abbreviate_task(*one) for one in ((5, [1, 3]), ([5, 50], "by_size"), (0, 3), (5, None))] == [
        "5w1-3s", "5-50wby_size", "k3", "",
    ]  # fmt: skip
    assert [words.name_queries(*one) for one in ((15, 5, None), (15, 0, None), (15, 5, "dirichlet(2)"))] == [
        "15 queries a class", "15 queries", "75 queries by dirichlet(2)",
    ]  # fmt: skip
    assert [words.format_duration(s) for s in (59.4, 60, 3599.6, 3600, 3723)] == [
        "0:59",
        "1:00",
        "1:00:00",
        "1:00:00",
        "1:02:03",
    ]
    assert [words.format_rate(r) for r in (120.4, 10, 9.96, 1, 0.314)] == ["120", "10", "10.0", "1.0", "0.31"]
    assert [words.format_p(p) for p in (None, 0.00099, 0.001, 0.0304)] == ["", "<0.001", "0.001", "0.030"]
    assert [words.describe_state(s) for s in ("died", "failed", "running")] == ["has died", "has failed", "is running"]
    assert sorted([5, "5-50", None, 20, "by_size"], key=words.order_size) == [None, 5, 20, "5-50", "by_size"]
    assert words.join_scores({"accuracy": 0.5, "accuracy@3": 0.4, "mse": 0.25}) == "accuracy 50.00 %  mse 0.2500"
    assert words.format_with_name("accuracy", 0.5) == "50.00 %"
    assert words.format_with_name("accuracy@3", 0.5) == "accuracy@3 50.00 %"
    assert words.name_processes(1) + words.name_processes(2) == ", in 2 processes"


def test_facts_stand_in_two_columns_and_a_command_in_one_line() -> None:
    shown = screen.Screen(width=30)
    facts = screen.Facts()
    facts.add("a", "x://u:p@h " + "word " * 6)
    facts.add_command("long", "metarun " + "key=value " * 4, "why")
    with shown.capture() as told:
        facts.show(shown)
    first, second, command_line = (line.rstrip() for line in told.get().splitlines())
    assert (first, second) == ("a     x://u:***@h word word", "      word word word word")
    assert command_line == "long  metarun key=value key=value key=value key=value    # why"
    assert screen.clean("a\x1b[1mb\u202ec\n") == "a[1mbc\n"


def batch(support: int = 2, query: int = 3, n_tasks: int = 4) -> Batch:
    return Batch(*(Examples(torch.zeros(n_tasks, n, 1), torch.zeros(n_tasks, n)) for n in (support, query)), 2)


def test_what_a_batch_draws_is_counted() -> None:
    from metarun.core.batches import MixedBatch

    assert count_drawn(batch()) == (20, 4)
    assert count_drawn(MixedBatch((batch(n_tasks=1), batch(5, 1, 1)))) == (11, 2)
    assert count_drawn(Examples(torch.zeros(7, 2), torch.zeros(7))) == (7, 0)
    assert count_drawn(Pairs(Examples(torch.zeros(7, 2), torch.zeros(7)), torch.zeros(5, 2))) == (12, 0)
    assert count_drawn(SimpleNamespace(drawn=batch())) == (20, 4)
    assert count_drawn(object()) is None


def test_few_tasks_come_again_in_whole_batches() -> None:
    """Seven tasks in batches of 2: places 0, 2, 4, and again, also for a resumed run; tests are all there."""

    def episodes(split: str, first: int, size: int) -> Any:
        while True:
            yield split, first, size
            first += size

    few = FewTasks(SimpleNamespace(episodes=episodes, examples=episodes, pairs=episodes, name="x"), 7)
    for draw in (few.episodes, few.examples, few.pairs):
        stream = draw("train", 4, 2)
        assert [next(stream)[1] for _ in range(5)] == [4, 0, 2, 4, 0]
        stream = draw("test", 4, 2)
        assert [next(stream) for _ in range(3)] == [("test", 4, 2), ("test", 6, 2), ("test", 8, 2)]
    assert few.name == "x"
    assert next(FewTasks(few.source, 1).episodes("train", 6, 2)) == ("train", 0, 2)


def test_a_training_ends_by_its_limits() -> None:
    """Validated at 4, 8, 12 and best at 4: two worse ones at 12. Minutes count training and validation."""
    found = [Limits(None, 2, 4).find_reason(Progress(step, best_step=4), Group()) for step in (11, 12)]
    assert found == [None, "run.patience=2: the validation of step 4 was the best"]
    timed = [
        Limits(1.0, None, 4).find_reason(Progress(1, train_seconds=40.0, val_seconds=s), Group()) for s in (19, 20)
    ]
    assert timed == [None, "run.max_time=1 minutes are over"]
    assert Limits(None, 1, 4).find_reason(Progress(40), Group()) is None


def test_metrics_are_averaged_over_the_steps_that_have_them_and_the_one_that_is_not_finite_is_named() -> None:
    assert average([{"a": 1.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
    lines = [{"loss": torch.tensor(1.0)}, {"loss": torch.tensor(float("nan"))}, {"loss": torch.tensor(2.0)}]
    with pytest.raises(RuntimeError, match=r"^loss is nan at outer step 8$") as caught:
        read_numbers(lines, 9)
    assert caught.value.step == 8  # type: ignore[attr-defined]
    progress = Progress()
    progress.count((6, 2))
    progress.step = 1
    progress.count((4, 1))
    assert progress.drawn == (10, 3)
    progress.count(None)
    progress.count((4, 1))
    assert progress.drawn is None
    assert Progress(step=6, train_seconds=3.0).find_rate(4) == 8.0
    assert Progress(step=6).find_rate(4) is None


def test_a_test_on_several_sources_is_told_source_by_source() -> None:
    source, values = SimpleNamespace(turns=("a", "b")), np.array([0.1, 0.5, 0.3, 0.7, 0.2, 0.6])
    found = estimate_by_source(source, {"mse": values})["by_source"]
    assert {name: one["mse"]["mean"] for name, one in found.items()} == pytest.approx({"a": 0.2, "b": 0.6})
    assert found["a"]["mse"]["n_tasks"] == 3
    assert estimate_by_source(source, {"mse": values[:3]}) == {}
    assert estimate_by_source(SimpleNamespace(), {"mse": values}) == {}


def test_images_are_counted() -> None:
    counts = join_counts([count_images([3, 5]), count_images([2, 2])])
    assert counts == {"least": 2, "most": 5, "total": 12}
    assert describe_images({"images": {"least": 2, "most": 5, "total": 1200}}) == "2 to 5 a class, 1,200 in all"
    assert describe_images({"images": {"least": 2, "most": 2, "total": 4}}) == "2 a class, 4 in all"
    assert describe_images({}) is None
    assert count_images([]) == {"least": 0, "most": 0, "total": 0}


def test_archives_in_a_folder_are_as_if_unpacked_there() -> None:
    """Those of splits, and those whose images lie in no folder, into folders of their own; not numbered parts."""

    def joined(*paths: str) -> list[str]:
        return [file.path for file in join_archives([ImageFile(path, bytes) for path in paths])]

    assert joined("in/train.zip/a/1.png", "in/test.tar.gz/b/2.png") == ["train/a/1.png", "test/b/2.png"]
    assert joined("train.zip/train/a/1.png") == ["train/a/1.png"]
    assert joined("cat.zip/1.png", "dog.zip/2.png") == ["cat/1.png", "dog/2.png"]
    assert joined("cat.zip/1.png") == ["1.png"]
    assert joined("part-1.tar/1.png", "part-2.tar/2.png") == ["1.png", "2.png"]
    assert joined("one.zip/a/1.png", "two.zip/b/2.png") == ["a/1.png", "b/2.png"]


def test_gray_images_are_normalised_by_the_mean_over_colours() -> None:
    look = Look((0.2, 0.4, 0.9), (0.1, 0.2, 0.3)).fit_channels(1)
    assert (look.mean, look.std) == ((pytest.approx(0.5),), (pytest.approx(0.2),))
    assert Look((0.5,), (0.5,)).fit_channels(3) == Look((0.5,), (0.5,))
    with pytest.raises(ValueError, match=r"^data\.mean has 3 numbers for images of 2 channels$"):
        Look((0.2, 0.4, 0.9), (0.1, 0.2, 0.3)).fit_channels(2)
    pixels = torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)
    assert Look((0.1, 0.2, 0.3), (0.1, 1.0, 2.0))(pixels, None).flatten().tolist() == pytest.approx([1.0, 0.0, -0.05])


def test_a_bandit_has_an_episode_of_one_pull_and_as_many_as_are_set() -> None:
    shape = EpisodeShape(0, 0, 0)
    source = Bandits(EpisodePlan(shape, shape, 0, 0), torch.device("cpu"), 3, 40)
    assert source.info.control == Control(1, 3, True, length=1, episodes=40)


def test_the_score_of_guessing_is_known_for_accuracies_alone() -> None:
    assert [score_guess(*one) for one in (("accuracy@3", 4), ("mse", 4), ("accuracy", "5-50"), ("accuracy", None))] == [
        0.25, None, None, None,
    ]  # fmt: skip


def test_what_a_run_was_trained_on_is_described() -> None:
    def told(settings: dict[str, Any], **results: Any) -> str:
        return describe_training(Run(Path(), "finished", results, settings, ()))

    assert told({}, drawn={"tasks": 0, "inputs": 9}) == "single images of all training classes"
    assert (
        told({"data.train.n_way": 60}, k_shot=1, n_way=5, drawn={"tasks": 8}, steps=2, meta_batch_size=4)
        == "60-way 1-shot"
    )
    assert (
        told({}, k_shot=1, n_way=5, drawn={"tasks": 7}, steps=2, meta_batch_size=4)
        == "single images, then 5-way 1-shot"
    )
    assert told({}, train={"n_way": 20, "k_shot": 2}, n_way=5, k_shot=1) == "20-way 2-shot"


def test_columns_go_from_a_narrow_table_one_by_one() -> None:
    heads, lines = ["algo", "score", "step", "points"], [["maml", "0.5", "30", "1,000"]]
    assert [choose_columns(heads, lines, width) for width in (27, 26, 18, 1)] == [
        [0, 1, 2, 3],
        [0, 1, 2],
        [0, 1],
        [0, 1],
    ]


def test_the_folder_that_files_share_is_found_at_any_depth() -> None:
    assert find_shared(["a/b/1.png", "a/b/c/2.png"]) == "a/b"
    assert find_shared(["a/b/1.png", "b/2.png"]) == ""


def test_wandb_is_told_no_number_twice_and_settings_by_group() -> None:
    assert drop_equal({"loss": 0.5, "mse": 0.5, "mse@3": 0.5, "mse@1": 0.7}) == {"mse": 0.5, "mse@1": 0.7}
    assert drop_equal({"loss": 0.5}) == {"loss": 0.5}
    assert nest({"algo": "maml", "algo.inner_lr": 0.4, "seed": 1, "optim/schedule": "cosine"}) == {
        "algo": {"name": "maml", "inner_lr": 0.4}, "seed": 1, "optim": {"schedule": {"name": "cosine"}},
    }  # fmt: skip
    summary = list_summary(
        {"status": "finished", "val": {"mse": 0.5}, "test": {"mse": {"mean": 0.4, "ci95": 0.1, "n_tasks": 9}}}
    )
    assert {key: value for key, value in summary.items() if value is not None} == {
        "status": "finished", "val/best_mse": 0.5, "test/mse": 0.4, "test/mse_ci95": 0.1, "test/n_tasks": 9,
    }  # fmt: skip
    score = {"accuracy": {"mean": 0.5, "ci95": 0.1}}
    told = [{"data": "cub", "n_way": 5, "k_shot": 1, "bn": bn, "test": score} for bn in ("support", "running")]
    assert list_tests([*told, told[0] | {"k_shot": None}]) == {
        f"eval/cub/{where}/accuracy{part}": value
        for where in ("5w1s/support", "5w1s/running", "support") for part, value in (("", 0.5), ("_ci95", 0.1))
    }  # fmt: skip
    assert explain(SimpleNamespace(errors=lambda: [{"msg": "wrong\nmore"}])) == "wrong"
    assert find_obstacle("http://localhost:9", 1.0) == "localhost:9: Connection refused"


def test_a_run_has_a_name_of_what_it_is() -> None:
    data = {"n_way": 5, "k_shot": 1, "trainval": True, "query": "dirichlet", "alpha": 2.0}
    assert name_run({"algo": "maml", "data": "cub"}, data, "support", 3) == "maml-cub-5w1s-support-trainval-s3"
    assert name_run({"algo": "a/b c", "data": "gp"}, {"k_shot": 3}, "none", 0) == "a_b_c-gp-k3-s0"
    assert name_query(data) == "dirichlet(2)"
    assert name_query({"query": "balanced", "alpha": 2.0}) is None


def test_the_ways_of_training_and_tests_are_told_where_they_differ() -> None:
    assert label_splits({"n_way": 5, "train": {"n_way": [5, 60]}}) == {"train": "5-60-way", "val": "5-way"}
    assert label_splits({"n_way": 5, "train": {"n_way": 5}}) == label_splits({"train": {"n_way": 5}}) == {}


def test_folders_of_ones_own_are_found_by_each_flag() -> None:
    typed = ["--config-dir", "a", "-cd", "b", "--config-dir=c", "algo=maml", "-cd"]
    assert list(map(str, list_config_dirs(typed))) == ["a", "b", "c", "."]


def test_words_for_sweeps_alone_are_told() -> None:
    typed = ["hydra.sweep.dir=x", "+sweep.rerun=all", "hydra.run.dir=y", "hydra/launcher=joblib", "seed=1"]
    assert list(find_idle_words(typed, False)) == [f"{typed[place]} has no effect without -m" for place in (0, 1, 3)]
    assert list(find_idle_words(typed, True)) == [
        "hydra.run.dir=y has no effect with -m: the runs of a sweep lie in hydra.sweep.dir"
    ]


def test_changes_of_the_code_are_told_of_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from metarun.app.commands import rerun

    monkeypatch.setattr(rerun, "read_versions", lambda: {"torch": "2", "numpy": "1"})
    monkeypatch.setattr(rerun, "read_git_state", lambda: {"commit": "a" * 40, "dirty": False})
    then = {"git": {"commit": "a" * 40, "dirty": True}, "versions": {"torch": "1", "wandb": "3"}}
    assert describe_code(then) == [
        "code: with uncommitted changes then", "numpy: none then, 1 now", "torch: 1 then, 2 now",
        "wandb: 3 then, none now",
    ]  # fmt: skip
    assert describe_code({"versions": {}}) == ["code: an installed copy then, commit aaaaaaaaaa now"]


@pytest.mark.parametrize(
    ("text", "mapping", "words"),
    [("a: 1", {"a": 1}, []), ("[a, b]", {}, ["a", "b"]), ("word", {}, []), ("", {}, []), ("{", {}, []), ("\0", {}, [])],
)
def test_a_file_that_holds_something_else_holds_nothing(
    tmp_path: Path, text: str, mapping: dict[str, int], words: list[str]
) -> None:
    file = tmp_path / "config.yaml"
    assert (read_yaml(file), read_yaml_list(file)) == ({}, [])
    file.write_text(text)
    assert (read_yaml(file), read_yaml_list(file)) == (mapping, words)


def test_overrides_are_all_words_that_were_typed() -> None:
    typed = ["algo=maml", "~data.trainval", "+paper.accuracy=0.9", "++seed=1", 3]
    assert read_overrides({"overrides": {"task": typed}}) == [*typed[:4], "3"]
    assert [read_overrides(hydra) for hydra in ({}, {"overrides": [1]}, {"overrides": {"task": "seed=1"}})] == [[]] * 3


@pytest.mark.parametrize("value", ["c", None, True, ("a",)])
def test_whoever_constructs_with_another_choice_is_told_those_that_there_are(value: object) -> None:
    check_choice("algo.x", "a", Literal["a", "b"])
    check_choice("algo.x", None, Literal["a", None])
    said = {None: "null", True: "true"}.get(value, str(value))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=f"^{re.escape(f'algo.x={said} is not one of a, b')}$"):
        check_choice("algo.x", value, Literal["a", "b"])


def test_a_setting_in_a_table_tells_no_password() -> None:
    values = ("https://me:secret@example.org/x", None, 0, False, [1, 2])
    assert [format_setting(value) for value in values] == ["https://me:***@example.org/x", "-", "0", "False", "[1, 2]"]


def test_an_image_that_is_listed_twice_is_one_image() -> None:
    """By the same path, or by another folder's; two files in one folder may be two images that look the same."""
    twice = [ImageFile("".join(("a/", name)), bytes) for name in ("1.png", "1.png", "2.png")]
    other = ImageFile("b/1.png", bytes)
    assert find_second_copies({"one": [*twice, other], "two": [other]}, [b"x", b"x", b"x", b"x", b"y"], "set") == {1, 3}
    assert find_second_copies({"one": twice[:1], "two": twice[2:]}, [b"x", b"x"], "set") == set()


def test_what_refers_elsewhere_is_looked_up_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_TRIED", "7")
    there = "${oc.env:METARUN_TRIED}"
    node = {"a": there, "b": ["x", there, [there], {"c": there}], "d": {"e": {"f": there}}, "g": "${a}", "h": "???"}
    found = look_up(OmegaConf.create(node))
    monkeypatch.setenv("METARUN_TRIED", "8")
    plain = OmegaConf.to_container(found)
    assert plain == {"a": "7", "b": ["x", "7", ["7"], {"c": "7"}], "d": {"e": {"f": "7"}}, "g": "${a}", "h": "???"}


def test_the_curve_of_a_run_is_of_its_learners_own_score(tmp_path: Path) -> None:
    """A score that nobody else knows is the one that the learner gives a direction."""
    run = finished(tmp_path / "run", [0.1, 0.2], score="gain", directions={"gain": "higher"})
    lines = [{"step": step, "split": "val", "loss": 1.0, "gain": step / 10, "other": 3.0} for step in (10, 20)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (found,) = find_runs([run])
    gain, loss = draw_curves(found, 80, colors=False)
    assert ("gain" in gain, "loss" in loss, "other" in gain + loss) == (True, True, False)


def test_each_runs_line_has_the_budget_of_that_run(tmp_path: Path) -> None:
    for seed, seconds in ((0, 30.0), (1, 50.0)):
        took = {"total": seconds + 5, "train": seconds, "val": 3.0, "test": 2.0}
        finished(tmp_path / str(seed), [0.1, 0.2], seed=seed, seconds=took, steps=40 + seed)
    comparisons, _ = compare(find_runs([tmp_path]), None, ["seed"], None, None)
    lines = list(csv.DictReader(io.StringIO(format_seed_csv(comparisons))))
    assert [(line["train_seconds"], line["seconds"]) for line in lines] == [("30.0", "35.0"), ("50.0", "55.0")]
    (line,) = csv.DictReader(io.StringIO(format_csv(comparisons)))
    assert (line["train_seconds"], line["seconds"]) == ("40.0", "45.0")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-a.png", "'-a.png"),
        ("+x", "'+x"),
        ("\t=1", "'\t=1"),
        ("-1.5e3", "-1.5e3"),
        ("+2", "+2"),
        ("a=b", "a=b"),
        ("", ""),
        (-1.5, -1.5),
        (None, None),
    ],
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(value: Any, cell: Any) -> None:
    assert words.make_cell(value) == cell


def test_all_examples_of_a_task_are_those_of_its_support_set_and_then_its_queries() -> None:
    sides = [Examples(torch.full((2, n, 1), float(n)), torch.full((2, n), n)) for n in (3, 2)]
    merged = merge_sides(Batch(*sides, 4, {"known": torch.arange(2)}))
    assert merged.query.x[..., 0].tolist() == [[3, 3, 3, 2, 2]] * 2
    assert merged.query.y.tolist() == [[3, 3, 3, 2, 2]] * 2
    assert (merged.support.y.tolist(), merged.n_way, merged.side["known"].tolist()) == ([[3] * 3] * 2, 4, [0, 1])
