"""Every shipped YAML composes, mirrors its constructor, and says what it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from metarun import names
from metarun.check import BUILD_KEYS, FACTS, check
from metarun.cli import CONF
from metarun.errors import ConfigError
from metarun.help import meaning

FILES = sorted(CONF.glob("*/*.yaml")) + sorted(CONF.glob("*/schedule/*.yaml"))
Settings = Callable[..., DictConfig]


def choice(file: Path) -> str:
    group = file.parent.relative_to(CONF).as_posix()
    return f"+{group}={file.stem}" if group == "experiment" else f"{group}={file.stem}"


@pytest.mark.parametrize("file", FILES, ids=choice)
def test_it_composes_passes_the_checks_and_has_a_meaning(file: Path, full: Settings) -> None:
    config = full(choice(file))
    check(config)
    OmegaConf.to_container(config, resolve=True)
    assert 10 <= len(meaning(file)) <= 110 or meaning(file) == "Adam"


@pytest.mark.parametrize("file", FILES, ids=choice)
def test_it_gives_every_argument_of_its_constructor_in_order(file: Path, full: Settings) -> None:
    group = file.parent.relative_to(CONF).as_posix().replace("/", ".")
    if group == "experiment":
        return
    node = OmegaConf.select(full(choice(file)), group)
    outside = FACTS[group] | BUILD_KEYS.get(group, set())
    given = [key for key in map(str, node) if not key.startswith("_") and key not in outside]
    arguments = [
        name for name in inspect.signature(get_object(node["_target_"])).parameters if name not in FACTS[group]
    ]
    if node["_target_"].startswith("metarun."):
        assert given == arguments
    else:  # torch's own have many more
        assert [name for name in arguments if name in given] == given


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_names_its_command_and_its_papers_number(file: Path, full: Settings) -> None:
    assert f"metarun +experiment={file.stem}" in file.read_text()
    paper = full(f"+experiment={file.stem}").paper
    assert 0 < paper.value < 1
    assert paper.source


def test_all_problems_come_in_one_report(full: Settings) -> None:
    config = full("run.steps=0", "optim.lr=0", "bn=x", "logger=wandb", "logger.mode=sometimes")
    with pytest.raises(ConfigError) as error:
        check(config)
    assert len(str(error.value).splitlines()) == 4


def test_a_setting_without_effect_warns(full: Settings, caplog: pytest.LogCaptureFixture) -> None:
    check(full("algo.engine=learn2learn", "algo.task_chunk=4", "run.steps=10", "run.val_every=20", "run.test_tasks=9"))
    assert [line.split()[0] for line in caplog.messages] == ["algo.task_chunk", "run.val_every", "run.test_tasks=9"]


def test_jobs_with_other_settings_have_other_names_and_none_is_too_long(full: Settings) -> None:
    keys = {names.settings_key(full(*o)) for o in ([], ["seed=1"], ["algo.inner_lr=0.1"], ["data.eval_seed=3"])}
    assert len(keys) == 4
    assert names.settings_key(full("paths.outputs=elsewhere")) == names.settings_key(full("paths.outputs=here"))
    caches = {names.settings_key(full(f"paths.cache={name}", "data=omniglot")) for name in ("here", "there")}
    assert len(caches) == 1
    long = OmegaConf.create({"algo": "a" * 300, "data": "my/own"})
    name = names.run_name(full(), long)
    assert len(name) <= names.LONGEST
    assert "/" not in name
