"""`metarun eval`: a trained run tested on other sources, ways, shots and queries."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, noise_tasks
from image_folders import write_noise
from omegaconf import OmegaConf
from PIL import Image
from run_folders import forget_hash
from same_process import Use, finish_runs, using

from metarun.algos.base.metric import MetricLearner
from metarun.app.jobs import retests
from metarun.app.jobs.mistakes import draw_mistakes
from metarun.app.jobs.reopened import open_trained
from metarun.app.jobs.retest_settings import make_settings
from metarun.core.tasks import EpisodePlan, EpisodeShape, Examples
from metarun.data.augment import Look
from metarun.data.files.splits import check_split
from metarun.data.resize import Resized, resize
from metarun.data.union import Union
from metarun.report import mistakes
from metarun.run.features import Features

TINY = [*SMALL, "backbone.hidden=8", "logger=none"]
FUNCTIONS = [word for word in SMALL if not word.startswith(("data.al", "data.ch", "data.train.n_way"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run of each kind: `proto`, `running` (bn), `three` (an ensemble), `maml` and `cnp` (on sine waves)."""
    folder = tmp_path_factory.mktemp("runs")
    typed = {
        "proto": [*TINY, "algo=protonet"],
        "running": [*TINY, "algo=protonet", "bn=running"],
        "three": [*TINY, "algo=protonet", "bn=running", "run.steps=4", "run.val_every=1", "run.ensemble=3"],
        "maml": TINY,
        "cnp": [*FUNCTIONS, "algo=cnp", "data=sinusoid", "algo.width=8", "logger=none"],
    }
    return finish_runs(folder, typed, cache)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], cache: Path) -> Iterator[Use]:
    """Exit code, standard output and standard error of `metarun` with these words."""
    with using(capsys, cache, 200) as said:
        yield said


def own(runs: Path, name: str, to: Path) -> Path:
    """A copy of a run for one test to leave its files in."""
    return Path(shutil.copytree(runs / name, to / name))


def made_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((run / "evals").glob("*.json"))]


def test_the_own_source_gives_the_runs_own_scores_bit_for_bit_and_once(
    runs: Path, say: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("proto", "maml", "running", "cnp"):
        run = own(runs, name, tmp_path)
        before = (run / "results.json").read_bytes()
        code, out, error = say("eval", run)
        assert (code, error) == (0, ""), out
        results, (mine, *others) = json.loads(before), sorted(made_of(run), key=lambda one: one["bn"] != bn_of(before))
        assert mine["test"] == results["test"]
        assert mine["episode_sha256"] == results["episode_sha256"]
        assert [one["bn"] for one in others] == {
            "proto": ["support"], "maml": ["support"], "running": ["transductive"], "cnp": []
        }[name]  # fmt: skip
        assert all(one["test"] != mine["test"] for one in others)
        (file,) = (run / "evals").glob(f"*-{mine['bn']}-*.npz")
        with np.load(file) as now, np.load(run / "test_tasks.npz") as then:
            assert set(now) == set(then)
            assert all(np.array_equal(now[score], then[score]) for score in then)
        assert (run / "results.json").read_bytes() == before
    monkeypatch.setattr(retests, "evaluate", lambda *_, **__: pytest.fail("made twice"))
    assert "1 of 1 made before, --again repeats them" in say("eval", run)[1]
    with pytest.raises(pytest.fail.Exception, match="made twice"):
        say("eval", run, "--again")


def test_validation_tasks_and_the_last_checkpoint_are_tested_where_that_is_asked(
    runs: Path, say: Use, tmp_path: Path
) -> None:
    """The score of as many validation tasks as the run validated on is the one that it noted."""
    run = own(runs, "maml", tmp_path)
    results = json.loads((run / "results.json").read_text())
    tasks, mode = OmegaConf.load(run / ".hydra" / "config.yaml").run.val_tasks, results["bn"]
    code, out, error = say("eval", run, "--split", "val", f"run.test_tasks={tasks}", f"bn={mode}")
    assert code == 0, error
    (val,) = made_of(run)
    assert val["test"]["loss"]["mean"] == pytest.approx(results["val"]["loss"], rel=1e-6)
    assert val["changes"] == {"tasks": "val"}
    assert "tasks=val" in out
    assert say("eval", run, "--checkpoint", "last", f"bn={mode}")[0] == 0
    (last,) = (one for one in made_of(run) if one["changes"] == {"checkpoint": "last"})
    assert last["best_step"] == results["steps"]
    assert (last["test"] == results["test"]) == (results["best_step"] == results["steps"])


def test_the_best_checkpoints_are_tested_together_where_that_is_asked(runs: Path, say: Use, tmp_path: Path) -> None:
    """On its own tasks it is the run's own test, to the bit. Another head has the features of each in turn: the mean of
    its probabilities is that of three runs with one checkpoint each."""
    run = own(runs, "three", tmp_path)
    results = json.loads((run / "results.json").read_text())
    assert len(set(results["ensemble"])) == 3
    code, out, error = say("eval", run, "--checkpoint", "ensemble")
    assert code == 0, error
    mine = next(one for one in made_of(run) if one["bn"] == results["bn"])
    assert mine["test"] == results["test"]
    assert mine["changes"] == {"checkpoint": "ensemble"}
    assert "checkpoint=ensemble" in out
    assert say("eval", run, f"bn={results['bn']}")[0] == 0
    assert sum(one["test"] == results["test"] for one in made_of(run)) == 1  # the best alone scores otherwise
    assert say("eval", run, "--checkpoint", "ensemble", "algo=bd_cspn", "bn=running")[0] == 0
    (head,) = (one for one in made_of(run) if one["changes"].get("algo") == "bd_cspn")
    assert head["answers"] == "together"
    with open_trained(run, {}, {}, checkpoint="ensemble") as trained:
        settings = make_settings(trained.saved, trained.source.info.input_shape, {"algo": "bd_cspn"})
        settings, shares = settings.change({"bn": "running"}).resolve(), []
        source = trained.open_source(settings, {})
        batch = next(source.episodes("test", 0, settings.run["test_tasks"]))
        tasks = [Examples(*side) for side in zip(*batch.support, strict=True)]
        for state in (trained.state, *trained.others):
            learner: Any = replace(trained, state=state).make_learner(settings).eval()
            found = [learner.adapt_to(one, batch.n_way)(x) for one, x in zip(tasks, batch.query.x, strict=True)]
            shares.append(torch.stack(found).softmax(-1))
    right = (torch.stack(shares).mean(0).argmax(-1) == batch.query.y).double().mean()
    assert head["test"]["accuracy"]["mean"] == pytest.approx(float(right))
    assert "leave out --checkpoint ensemble" in say("eval", run, "--checkpoint", "ensemble", "--pictures")[2]
    alone = own(runs, "proto", tmp_path)
    assert f"{alone} kept its best checkpoint alone" in say("eval", alone, "--checkpoint", "ensemble")[2]


def test_settings_are_chosen_on_validation_tasks_and_the_best_alone_is_tested(
    runs: Path, say: Use, tmp_path: Path
) -> None:
    run = own(runs, "maml", tmp_path)
    asked = ["algo.inner_lr=0.0001,0.4", "data.k_shot=1,2", "bn=support", "run.test_tasks=4"]
    code, out, error = say("eval", run, *asked, "--choose")
    assert code == 0, error
    by_split: dict[bool, dict[tuple[int, float], float]] = {True: {}, False: {}}
    for one in made_of(run):
        scores = by_split["tasks" in one["changes"]]
        scores[one["k_shot"], one["changes"]["algo.inner_lr"]] = one["test"]["accuracy"]["mean"]
    assert len(by_split[True]) == 4
    best = {shots: max((0.0001, 0.4), key=lambda rate: by_split[True][shots, rate]) for shots in (1, 2)}
    assert set(by_split[False]) == set(best.items())
    assert out.count("is the best of 2 on 4 validation tasks, and tested") == 2
    for words, said in (
        (["data.k_shot=1,2", "--choose"], "--choose needs several values of a setting of the algorithm"),
        ([*asked, "--choose", "--split", "val"], "leave out --split val"),
    ):
        code, _, error = say("eval", run, *words)
        assert (code, said in error) == (2, True), error


def bn_of(results: bytes) -> str:
    return str(json.loads(results)["bn"])


def test_images_of_another_source_are_made_what_the_network_takes(runs: Path, say: Use, tmp_path: Path) -> None:
    """20 classes of colour images of 40x30 pixels, for a network of gray 28x28 ones."""
    write_noise(tmp_path / "mine", [f"c{label:02d}" for label in range(20)], 6, 30, 40, 3)
    run, table = own(runs, "proto", tmp_path), tmp_path / "t.csv"
    words = ["data=glyphs,folder", f"data.path={tmp_path / 'mine'}", "data.n_way=3", "data.n_query=2,3"]
    code, out, error = say("eval", run, *words, "--csv", table)
    assert code == 0, error
    said = "images of folder: 84x84 pixels become 28x28, colours become gray, normalised as those of glyphs"
    assert out.count(said) == 1
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["data"], row["n_way"], row["n_query"], row["bn"], row["n_tasks"]) for row in rows] == [
        (data, "3", queries, bn, "12")
        for data in ("glyphs", "folder")
        for queries in "23"
        for bn in ("transductive", "support")
    ]
    kept = {(one["data"], str(one["n_query"]), one["bn"]): one["test"]["loss"]["mean"] for one in made_of(run)}
    assert [float(row["loss_mean"]) for row in rows] == [kept[row["data"], row["n_query"], row["bn"]] for row in rows]
    for number, own_look in enumerate(("data.mean=[0.9,0.9,0.9]", "data.std=[0.3,0.3,0.3]"), 9):
        typed = ["data=folder", *words[1:3], "bn=support", own_look]
        assert "28x28, colours become gray\n" in say("eval", run, *typed)[1]
        assert len({one["test"]["loss"]["mean"] for one in made_of(run)}) == number
    assert all(0 < float(row["loss_mean"]) < 10 and row["seen_classes"] == "0" for row in rows)


def test_fitted_images_are_scaled_made_gray_and_normalised_in_this_order() -> None:
    """Two sources of the same pixels; the one normalises by itself, which being fitted takes from it."""
    source, plain = noise_tasks(), noise_tasks()
    source.look = Look((0.9,), (3.0,))
    shape, look = (3, 14, 14), Look((0.1, 0.2, 0.3), (0.5, 0.5, 2.0))
    batch, before = next(Resized(source, shape, look).episodes("test", 2, 2)), next(plain.episodes("test", 2, 2))
    half = resize(before.query.x, (1, 14, 14))
    for channel, (mean, std) in enumerate(zip(look.mean, look.std, strict=True)):
        assert torch.allclose(batch.query.x[:, :, channel], (half[:, :, 0] - mean) / std)
    assert torch.equal(batch.support.y, before.support.y)
    kept = next(Resized(plain, (1, 28, 28), None).episodes("test", 2, 2))
    assert torch.equal(kept.query.x, before.query.x)
    colours = torch.tensor([0.0, 0.3, 0.9]).reshape(1, 1, 3, 1, 1).expand(1, 1, 3, 4, 4)
    assert torch.allclose(resize(colours, (1, 4, 4)), torch.tensor(0.4))


def test_every_member_of_a_union_is_normalised_once() -> None:
    """Two sources of the same pixels, each with a normalisation of its own, which being fitted takes from both."""
    plan = EpisodePlan(EpisodeShape(5, 1, 2), EpisodeShape(5, 1, 3), 0, 0)
    sources = {name: noise_tasks() for name in ("one", "other")}
    for source, std in zip(sources.values(), (3.0, 4.0), strict=True):
        source.look = Look((0.9,), (std,))
    union, look = Union(plan, lambda name: sources[name], list(sources), 28, 1), Look((0.1,), (0.5,))
    batch, plain = (
        next(Resized(union, (1, 28, 28), look).episodes("test", 0, 2)),
        noise_tasks().batch("test", np.arange(1)),
    )
    for task in range(2):
        assert torch.allclose(batch.query.x[task], (plain.query.x[0] - 0.1) / 0.5)


@pytest.mark.slow
def test_shots_make_a_curve_and_ways_may_differ_where_heads_are_made_for_each_task(
    runs: Path, say: Use, tmp_path: Path
) -> None:
    run = own(runs, "proto", tmp_path)
    code, out, error = say("eval", run, "data.k_shot=1,12", "data.n_way=3", "bn=support")
    assert (code, error) == (0, "")
    assert [line.split()[1:4] for line in out.splitlines() if line.startswith(" glyphs")] == [
        ["3-way", "1-shot", "3"], ["3-way", "12-shot", "3"]
    ]  # fmt: skip
    picture = Image.open(run / "evals" / "shots-glyphs.png")
    assert len(set(picture.convert("RGB").get_flattened_data())) > 20
    run = own(runs, "maml", tmp_path)
    assert say("eval", run, "data.k_shot=2")[0] == 0
    code, _, error = say("eval", run, "data.n_way=3")
    assert code == 2
    assert "data.n_way=3: this MAML has a head for 5 classes; leave data.n_way=5, or train one that" in error


def test_classes_that_were_trained_on_are_told(runs: Path, say: Use, tmp_path: Path) -> None:
    """Alphabet 4 of five is tested on, and is one of the first six of ten, which were trained on."""
    run = own(runs, "proto", tmp_path)
    said = "glyphs: 12 of 12 test classes were trained on, alphabet004/character00 among them"
    assert said in say("eval", run, "data.alphabets=5", "data.characters=12", "bn=transductive")[1]
    assert "trained on, alphabet" not in say("eval", run)[1]


def test_a_learner_of_functions_is_tested_on_others(runs: Path, say: Use, tmp_path: Path) -> None:
    run = own(runs, "cnp", tmp_path)
    code, out, error = say("eval", run, "data=sinusoid,harmonic,gp", "data.k_shot=5,10")
    assert (code, error) == (0, ""), out
    found = {(one["data"], one["k_shot"]): one["test"]["log_likelihood"]["mean"] for one in made_of(run)}
    assert len(found) == len(set(found.values())) == 6
    assert (run / "evals" / "shots-sinusoid-harmonic-gp.png").is_file()
    code, _, error = say("eval", run, "data=glyphs")
    assert (code, error) == (2, "metarun: data=glyphs: its tasks are classes, and the run's were functions\n")


def test_list_and_show_tell_of_tests(runs: Path, say: Use, tmp_path: Path) -> None:
    run = own(runs, "proto", tmp_path)
    assert "evals" not in say("list", tmp_path)[1]
    say("eval", run)
    heads, _, row = say("list", tmp_path)[1].split("\n")[1:4]
    assert (heads.split()[4], row.split()[-7]) == ("evals", "2")
    out = say("show", run)[1]
    assert "results of metarun eval" in out
    assert sum(line.startswith(" glyphs   5-way 1-shot") for line in out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1"], "seed=1 changes nothing in a test, or what was trained; eval takes data=, "),
        (["data.train.k_shot=2"], "data.train.k_shot=2 changes nothing in a test"),
        (["data.kshot=2"], "there is no setting data.kshot; did you mean data.k_shot?"),
        (["data=cubb"], "there is no data=cubb; did you mean cub?"),
        (["data=sinusoid"], "data=sinusoid: its tasks are functions, and the run's were classes"),
        (["bn=running"], "bn=running: the run was trained with bn=transductive; it can be tested with bn="),
        (["data.k_shot=18"], "need 21 images of a class; 'alphabet008/character00' of split 'test' has 20"),
        (["run.test_tasks=1"], "run.test_tasks=1 must be a whole number of at least 2"),
        (["data.k_shot=[1"], "data.k_shot=[1 cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_tested_is_said_in_a_line(runs: Path, say: Use, words: list[str], said: str) -> None:
    code, _, error = say("eval", runs / "proto", *words)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (runs / "proto" / "evals").exists()


def test_only_finished_runs_with_their_weights_are_tested(runs: Path, say: Use, tmp_path: Path) -> None:
    run = own(runs, "proto", tmp_path)
    (run / "checkpoints" / "best.pt").unlink()
    assert f"{run / 'checkpoints' / 'best.pt'} is missing, and it is what is tested" in say("eval", run)[2]
    (run / "results.json").unlink()
    code, _, error = say("eval", run)
    told = f"metarun: {run} has died, and only a finished run can be tested or used: metarun resume {run}\n"
    assert (code, error) == (2, told)
    code, _, error = say("eval", tmp_path)
    assert (code, error) == (2, f"metarun: {tmp_path} is not the folder of a run: it has no .hydra/config.yaml\n")


def test_only_splits_that_tasks_are_drawn_of_have_to_be_large_enough() -> None:
    """Train and val have 4 images of a class, test has 9."""
    split = {"train": ["a", "b"], "val": ["c", "d"], "test": ["e", "f"]}
    sizes = {label: 9 if label in split["test"] else 4 for labels in split.values() for label in labels}
    plan = EpisodePlan(EpisodeShape(2, 5, 4), EpisodeShape(2, 5, 4), 0, 0)
    with pytest.raises(ValueError, match="'a' of split 'train' has 4"):
        check_split(split, sizes, plan)
    assert check_split(split, sizes, replace(plan, splits=("test",))) == split


def test_a_test_needs_no_more_classes_than_its_own_split_has(runs: Path, say: Use, tmp_path: Path) -> None:
    """Of 12 classes, 6 are for tests and 2 for validation: a run is tested 5-way, and cannot be trained so."""
    run = own(runs, "proto", tmp_path)
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 6
    write_noise(tmp_path / "mine", [f"{split}/c{nth:02d}" for nth, split in enumerate(splits)], 6, 28, 28)
    words = ["data=folder", f"data.path={tmp_path / 'mine'}", "data.n_way=5", "data.n_query=2"]
    code, out, error = say("eval", run, *words)
    assert (code, error) == (0, ""), out
    assert {one["classes"] for one in made_of(run) if one["data"] == "folder"} == {6}


def test_a_run_older_than_a_setting_is_tested_with_the_settings_default(runs: Path, say: Use, tmp_path: Path) -> None:
    folder = forget_hash(own(runs, "proto", tmp_path))
    file = folder / ".hydra" / "config.yaml"
    config = OmegaConf.load(file)
    for group, key in (("data", "rotation"), ("algo", "temperature"), ("backbone", "layers")):
        del config[group][key]
    OmegaConf.save(config, file)
    code, _, error = say("eval", folder)
    assert code == 0, error
    found = [json.loads(path.read_text())["test"] for path in (folder / "evals").glob("*-transductive-*.json")]
    assert found == [json.loads((folder / "results.json").read_text())["test"]]


@pytest.fixture
def sweep(runs: Path, tmp_path: Path) -> Path:
    """A folder with two finished runs, one of ProtoNet and one of MAML, and one that died."""
    folder = tmp_path / "sweep"
    for name in ("proto", "maml"):
        own(runs, name, folder)
    (own(runs, "proto", tmp_path) / "results.json").unlink()
    (tmp_path / "proto").rename(folder / "dead")
    return folder


@pytest.mark.slow
def test_every_run_of_a_sweep_is_tested_and_compare_pairs_the_tests(sweep: Path, say: Use, tmp_path: Path) -> None:
    words = ["data.k_shot=2", "bn=support,transductive"]
    code, out, error = say("eval", sweep, *words, "--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md")
    assert (code, error) == (0, "")
    assert [len(made_of(sweep / name)) for name in ("proto", "maml")] == [2, 2]
    assert f"{sweep / 'dead'} has died: not tested" in out
    assert "1 of 2: maml: glyphs, 5-way 2-shot, bn=support: accuracy" in out
    assert out.count("5-way 2-shot, 3 queries a class, bn=") == 2  # a table for each mode
    assert (tmp_path / "t.md").read_text().count("### table") == 2
    with (tmp_path / "t.csv").open() as file:
        rows = [(row["algo"], row["bn"], row["k_shot"]) for row in csv.DictReader(file)]
    assert sorted(rows) == [(a, bn, "2") for a in ("maml", "protonet") for bn in ("support", "transductive")]
    assert say("eval", sweep, *words)[1].count("4 of 4 made before") == 1
    file = tmp_path / "pairs.csv"
    assert say("compare", sweep, "--baseline", "algo=maml", "--csv", file)[0] == 0
    with file.open() as opened:
        found = {(row["k_shot"], row["bn"], row["algo"]): row for row in csv.DictReader(opened)}
    assert set(found) == {(k, bn, a) for k, bn in (("1", "transductive"), ("2", "transductive"), ("2", "support"))
                          for a in ("maml", "protonet")}  # fmt: skip
    for bn in ("support", "transductive"):
        scores = []
        for name in ("proto", "maml"):
            (npz,) = (sweep / name / "evals").glob(f"*-{bn}-*.npz")
            with np.load(npz) as kept:
                scores.append(kept["accuracy"].astype(np.float64))
        row = found["2", bn, "protonet"]
        assert float(row["mean"]) == pytest.approx(scores[0].mean(), rel=1e-12)
        assert float(row["difference"]) == pytest.approx((scores[0] - scores[1]).mean(), rel=1e-9)
    only = say("compare", sweep, "--where", "k_shot=2,bn=support")[1]
    assert (only.count("bn=support"), only.count("bn=transductive")) == (1, 0)
    code, _, error = say("compare", sweep, "--where", "k_shot=3")
    assert (code, error) == (2, "metarun: --where k_shot=3: no run is so; k_shot is 1, 2\n")
    assert "--where shots: no run has this setting" in say("compare", sweep, "--where", "shots=3")[2]


def test_what_one_run_of_a_sweep_cannot_do_does_not_keep_the_others(sweep: Path, say: Use) -> None:
    code, _, error = say("eval", sweep, "data.n_way=3", "bn=support")
    assert code == 2
    assert error.startswith("metarun: 1 of 2: maml: data.n_way=3: this MAML has a head for 5 classes")
    assert [len(made_of(sweep / name)) for name in ("proto", "maml")] == [1, 0]


def test_of_a_sweep_with_one_finished_run_the_tests_are_said_to_lie_in_that_run(sweep: Path, say: Use) -> None:
    (sweep / "maml" / "results.json").unlink()
    code, out, error = say("eval", sweep, "bn=support")
    assert code == 0, error
    assert f"kept in {sweep / 'proto' / 'evals'}/" in out


def test_the_tests_of_one_run_alone_are_said_not_compared(sweep: Path, say: Use) -> None:
    say("eval", sweep / "proto", "data.k_shot=2", "bn=support")
    out = say("compare", sweep)[1]
    assert "2-shot" not in out
    assert "1 test by metarun eval, as no other run was tested, left out: metarun show RUN" in out


@pytest.mark.slow
def test_mamls_weights_are_tested_with_a_frozen_body_another_head_and_another_rate(
    runs: Path, say: Use, tmp_path: Path
) -> None:
    """ANIL keeps the body as it is; ProtoNet has no head. An inner rate of 0 is no inner loop: as no inner step."""
    run = own(runs, "maml", tmp_path)
    code, out, error = say("eval", run, "algo=anil,protonet,proto_maml", "bn=transductive")
    assert (code, error) == (0, "")
    assert "algo=protonet has no use for net.head.weight, net.head.bias, which maml trained" in out
    found = {one["changes"]["algo"]: one["test"]["loss"]["mean"] for one in made_of(run)}
    own_loss = json.loads((run / "results.json").read_text())["test"]["loss"]["mean"]
    assert len({own_loss, *found.values()}) == 4
    say("eval", run, "algo.inner_lr=0.7", "bn=transductive")
    say("eval", run, "algo.test_inner_steps=0", "bn=transductive")
    changed = {str(one["changes"]): one["test"]["loss"]["mean"] for one in made_of(run)}
    assert len({own_loss, *changed.values()}) == 6
    table = say("compare", run)[1]
    assert "test.algo" in table and "inner_lr" in table  # noqa: PT018
    code, _, error = say("eval", run, "algo=r2d2", "bn=transductive")
    assert code == 2
    assert "algo=r2d2 has weights that maml did not train: " in error
    code, _, error = say("eval", own(runs, "proto", tmp_path), "algo=maml", "bn=transductive")
    assert (code, "algo=maml has weights that protonet did not train: net.head.weight, net.head.bias" in error) == (
        2,
        True,
    )


def test_another_head_scores_a_trained_backbone_as_if_it_had_been_trained_with_it(
    runs: Path, say: Use, tmp_path: Path
) -> None:
    """SimpleShot without normalisation is ProtoNet; what it trains besides, a classifier, no test uses."""
    run = own(runs, "proto", tmp_path)
    code, out, error = say("eval", run, "algo=simpleshot", "algo.features=un,l2n", "bn=transductive")
    assert (code, error) == (0, "")
    assert "algo=simpleshot algo.features=un changes nothing in this test" in out
    assert "algo.features=l2n changes nothing" not in out
    assert (
        "algo=simpleshot has weights that protonet did not train: mean"
        in say("eval", run, "algo=simpleshot", "algo.features=cl2n")[2]
    )


@pytest.mark.slow
def test_heads_on_a_trained_network_share_its_embeddings_and_score_as_on_images(
    runs: Path, say: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 480 test images in two batches, for two shots and three heads, of which two answer queries together."""
    seen: list[int] = []
    encode = MetricLearner._encode
    monkeypatch.setattr(MetricLearner, "_encode", lambda self, x: seen.append(len(x)) or encode(self, x))
    both = [Path(shutil.copytree(runs / "running", tmp_path / name)) for name in ("kept", "plain")]
    words = [
        "algo=protonet,bd_cspn,pt_map", "data.k_shot=1,2", "run.test_tasks=30", "bn=running", "data.query=dirichlet",
        f"paths.cache={tmp_path}",
    ]  # fmt: skip
    code, out, error = say("eval", both[0], *words)
    assert (code, error) == (0, "")
    assert sum(seen) == 480
    for cell in ("answers", "alone", "together, balanced assumed", "15 queries by dirichlet(2)"):
        assert cell in out, cell
    (file,) = tmp_path.glob("features-*.safetensors")
    assert say("eval", both[0], *words, "--again")[0] == 0
    assert sum(seen) == 480
    monkeypatch.setattr(Features, "remember", lambda self, network, encode: encode)
    assert say("eval", both[1], *words)[0] == 0
    assert sum(seen) == 7 * 480
    scores = [{(one["changes"]["algo"], one["k_shot"]): one["test"] for one in made_of(run)} for run in both]
    assert scores[0] == scores[1]
    assert len(scores[0]) == len({str(test) for test in scores[0].values()}) == 6
    said = {one["changes"]["algo"]: (one["answers"], one["query"]) for one in made_of(both[0])}
    assert said["bd_cspn"] == ("together", "dirichlet(2)")
    table = say("compare", both[0])[1]
    assert "queries by dirichlet(2)" in table
    assert "balanced assumed" in table
    assert file.is_file()


def test_a_change_without_effect_is_told(runs: Path, say: Use, tmp_path: Path) -> None:
    run = own(runs, "maml", tmp_path)
    said = "algo.first_order=True changes nothing in this test"
    assert said in say("eval", run, "algo.first_order=true", "bn=transductive")[1]
    assert said not in say("eval", run, "algo.first_order=true", "algo.inner_lr=0.1", "bn=transductive")[1]


@pytest.mark.slow
def test_pictures_of_mistakes_count_what_the_test_scored(runs: Path, say: Use, tmp_path: Path) -> None:
    """The answers that are drawn and counted are those of the accuracy: 12 tasks of 15 queries, however many are
    answered together: 5, 5 and the last 2."""
    for name in ("proto", "maml"):
        run = own(runs, name, tmp_path)
        code, out, error = say("eval", run, "bn=transductive", "--pictures")
        assert (code, error) == (0, "")
        assert "hardest classes" in out
        tasks, hardest = sorted((run / "evals").glob("*.png"), reverse=True)
        assert (tasks.name.endswith("-tasks.png"), hardest.name.endswith("-hardest.png")) == (True, True)
        with open_trained(run, {}, {}) as trained:
            found, _ = draw_mistakes(trained, {}, "transductive")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mistakes, "LEAST_QUERIES", 1)
                patch.setattr("metarun.app.jobs.mistakes.HARDEST", 100)
                every, _ = draw_mistakes(trained, {"run.eval_batch_size": 5}, "transductive")
                at_once, _ = draw_mistakes(trained, {"run.eval_batch_size": 12}, "transductive")
        assert every == at_once
        accuracy = made_of(run)[0]["test"]["accuracy"]["mean"]
        wrong = sum(one.queries - one.right for one in every)  # classes without a mistake are not among them
        assert wrong == round((1 - accuracy) * 12 * 15)
        assert all(sum(n for _, n, _ in one.taken) == one.queries - one.right for one in every)
        assert [one.name for one in found] == [one.name for one in every if one.queries >= 10][:8]


def test_pictures_of_what_has_no_classes_are_refused(runs: Path, say: Use, tmp_path: Path) -> None:
    code, _, error = say("eval", own(runs, "cnp", tmp_path), "--pictures")
    assert (code, "--pictures: only for classes of images" in error) == (2, True)
