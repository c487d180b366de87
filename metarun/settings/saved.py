"""Settings as earlier versions of the program saved them: classes that have moved since, and keys that are newer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from metarun.core.errors import ConfigError
from metarun.core.identity import as_mapping, describe_lost_choices, read_yaml
from metarun.core.run_folder import RunFolder
from metarun.settings.conf import CONF, GROUPS, load_settings, read_shipped
from metarun.settings.replaced import RENAMED

_FAMILIES = {
    "gradient": "anil boil cavia imaml maml maml_pp meta_curvature meta_sgd minibatch_prox proto_maml reptile",
    "metric": "matchingnet metaoptnet protonet r2d2 relationnet",
    "processes": "anp cnp gp_oracle",
    "transfer": "baseline baseline_pp distill finetune meta_baseline simpleshot",
}
MOVED = {
    "metarun.algos.np": "metarun.algos.processes.neural_process",
    "metarun.backbones.torchvision": "metarun.backbones.torchvision_nets",
    "metarun.data.torchvision": "metarun.data.torchvision_sets",
    "metarun.report.sinks.NoSink": "metarun.run.tracking.sink.NoSink",
    "metarun.report.sinks.TensorBoardSink": "metarun.run.tracking.tensorboard_sink.TensorBoardSink",
    "metarun.report.sinks.WandbSink": "metarun.run.tracking.wandb_sink.WandbSink",
    "metarun.schedules": "metarun.ops.schedules",
} | {f"metarun.algos.{name}": f"metarun.algos.{to}.{name}" for to, names in _FAMILIES.items() for name in names.split()}
"""Classes, or modules with all their classes, as runs of November 2026 and before name them, and where they are now."""

NEWER: Mapping[str, tuple[Any, ...]] = {
    "optims": ({},),
    "deterministic": (False,),
    "run.on_nan": ("stop",),
    "run.max_time": (None,),
    "run.patience": (None,),
    "run.train_tasks": (None,),
    "run.ensemble": (1,),
    "data.views": (1,),
    "backbone.slope": (0.0,),
    "data.labels": ("shuffled", None),
    "data.members": ({},),
    "data.templates": (["a photo of a {}."],),
    "algo.network": ("mlp",),
    "algo.factors": ("axes",),
    "algo.transform": (None,),
    "data.within_alphabet": (False,),
    "data.alpha": (2.0,),
    "data.query": ("balanced",),
    "backbone.weights": (None,),
    "algo.film": (False,),
    "algo.label_smoothing": (0.0,),
    "optim.warmup": (0,),
    "optim.parts": ({},),
    "algo.decoder_std": (None,),
    "algo.rise_steps": (0,),
    "algo.temperature": (1.0,),
    "algo.label": ("late",),
    "algo.features": ("un",),
}
"""Settings that older runs lack, with the values that mean what those runs did. A setting that is added to a YAML which
earlier runs used belongs here."""

MEANT: Mapping[str, Mapping[str, Any]] = {
    "metarun.algos.memory.caml.CAML": {"features": "un"},
    "metarun.algos.memory.mann.MANN": {"temperature": 1.0, "label": "late"},
}
"""Newer settings of classes whose default of today is not what runs without them did, with the values that are."""

_FIRST = {now: then for then, now in MOVED.items()}


def find_current_target(target: str) -> str:
    """Return where the class that settings call `target` is now."""
    return _renamed(target, MOVED)


def find_first_target(target: str) -> str:
    """Return the first name of the class `target`, which names of folders are made of and which never changes."""
    return _renamed(target, _FIRST)


def _renamed(target: str, names: Mapping[str, str]) -> str:
    module, _, name = target.rpartition(".")
    return names.get(target) or f"{names.get(module, module)}.{name}"


def rename_moved(config: DictConfig) -> None:
    """Give every class in `config` its name of today, and add settings that replace a class, or that mean the same."""
    for node in list_class_nodes(config):
        target = node["_target_"]
        if not isinstance(target, str) or "." not in target:
            continue
        now, added = RENAMED.get(find_first_target(target), (find_current_target(target), {}))
        with open_dict(node):
            node.update({"_target_": now, **added})
            node.update({key: value for key, value in MEANT.get(now, {}).items() if key not in node})


def rename_back(config: DictConfig) -> None:
    """Undo `rename_moved`: give every class in `config` its first name, without the added settings."""
    for node in list_class_nodes(config):
        target = str(node["_target_"])
        for then, (now, added) in RENAMED.items():
            if target == now and all(node.get(key) == value for key, value in added.items()):
                target = then
                with open_dict(node):
                    for key in added:
                        del node[key]
                break
        node["_target_"] = find_first_target(target)


def drop_newer(config: DictConfig) -> None:
    """Drop the settings that older runs lack where they mean what those runs did: such a run is then the same job."""
    for key, values in NEWER.items():
        group, _, name = key.rpartition(".")
        node = config[group] if group else config
        if node.get(name) in values and not _had_before(key, config):
            node.pop(name, None)


def _had_before(key: str, config: DictConfig) -> bool:
    """Return whether older runs had this setting already, by what else the settings say."""
    if key == "data.within_alphabet":
        return not str(config.data["_target_"]).endswith(".Glyphs")
    if key == "backbone.weights":
        return str(config.backbone["_target_"]).endswith(".Torchvision")
    if key == "algo.rise_steps":
        return str(config.algo["_target_"]).endswith(".DANN")
    if owners := [target for target, meant in MEANT.items() if key.removeprefix("algo.") in meant]:
        return config.algo["_target_"] not in owners
    return key == "data.alpha" and config.data.get("query") != "balanced"  # `alpha` comes before `query` in NEWER


def open_settings(folder: Path) -> tuple[DictConfig, dict[str, Any]]:
    """Read the settings of the run in `folder`, unresolved, with today's names and newer settings, and Hydra's own.

    Hydra's are plain values: nothing that they refer to is looked up.

    A setting that is newer than the run has its default of today; a choice of one's own has none.
    Raises: ConfigError if there is no run, or Hydra's own settings are lost.
    """
    files = RunFolder(folder)
    files.check()
    if not read_yaml(files.settings):
        raise ConfigError(f"{files.settings} cannot be read, and it has the run's settings")
    config = OmegaConf.load(files.settings)
    hydra = _read_hydra(files)
    assert isinstance(config, DictConfig)
    rename_moved(config)
    root = load_settings(CONF / "config.yaml")
    for key in map(str, root):
        if key not in config and key not in ("defaults", "hydra"):
            config[key] = root[key]
    for group in GROUPS:
        choice = hydra["runtime"]["choices"].get(group)
        if (CONF / group / f"{choice}.yaml").is_file():
            config[group] = OmegaConf.merge(read_shipped(choice, group), config[group])
    return config, hydra


def _read_hydra(files: RunFolder) -> dict[str, Any]:
    """Read Hydra's own settings. Raises: ConfigError if what was chosen is not among them."""
    hydra = as_mapping(read_yaml(files.hydra).get("hydra"))
    chosen = as_mapping(as_mapping(hydra.get("runtime")).get("choices"))
    if not {*GROUPS} - {"logger"} <= {*chosen}:
        raise ConfigError(describe_lost_choices(files))
    return dict(hydra)


def list_class_nodes(node: Any) -> Iterator[DictConfig]:
    """Yield the parts of some settings that name a class, including the whole."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in map(str, node):
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from list_class_nodes(node[key])


def read_saved_value(folder: Path, key: str) -> Any:
    """Read one setting of the run in `folder`, resolved; None if it has none that can be read."""
    saved = OmegaConf.create(read_yaml(RunFolder(folder).settings))
    return OmegaConf.select(saved, key, throw_on_resolution_failure=False)
