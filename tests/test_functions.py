"""Tasks that are functions: what they hold, and what is said of settings that do not fit them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from scipy import stats
from test_settings_matter import NO_EFFECT, found, other_values, settings_of

from metarun.core import objectives
from metarun.core.episodes import draw_bits, scale_to_unit
from metarun.core.tasks import EpisodePlan, EpisodeShape
from metarun.data.gp import GaussianProcess
from metarun.data.harmonic import Harmonic
from metarun.data.mixture import FAMILIES, Mixture, choose_family
from metarun.data.sinusoid import Sinusoid
from metarun.settings.build import build_source
from metarun.settings.resolve import resolve

PLAN = EpisodePlan(EpisodeShape(0, 5, 5), EpisodeShape(0, 5, 20), 0, 0)
PI = float(np.pi)


def sinusoids(plan: EpisodePlan = PLAN, **changes: list[float] | bool) -> Sinusoid:
    ranges: dict[str, Any] = {"amplitude": [0.1, 5.0], "phase": [0.0, PI], "x": [-5.0, 5.0]} | changes
    return Sinusoid(plan, torch.device("cpu"), **ranges)


def waves(source: Sinusoid, split: str, n_tasks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amplitude and phase of each task, and how far its points lie from that wave.

    a sin(x - p) = A sin x + B cos x with A = a cos p, B = -a sin p: linear least squares finds both.
    """
    batch = source.batch(split, np.arange(n_tasks))
    found = []
    for i in range(n_tasks):
        x, y = (torch.cat([batch.support[k][i], batch.query[k][i]])[:, 0].double().numpy() for k in (0, 1))
        basis = np.stack([np.sin(x), np.cos(x)], 1)
        (a_cos, b), *_ = np.linalg.lstsq(basis, y)
        found.append((np.hypot(a_cos, b), np.arctan2(-b, a_cos), np.abs(basis @ [a_cos, b] - y).max()))
    return tuple(np.array(found).T)


def test_a_task_is_a_sine_wave_of_an_amplitude_and_a_phase_in_their_ranges() -> None:
    a, p, away = waves(sinusoids(), "train", 300)
    assert away.max() < 1e-5
    assert stats.kstest((a - 0.1) / 4.9, "uniform").pvalue > 1e-4
    assert stats.kstest(p / PI, "uniform").pvalue > 1e-4
    a, p, _ = waves(sinusoids(amplitude=[2.0, 2.0], phase=[0.5, 1.0]), "train", 50)
    assert np.allclose(a, 2, atol=1e-5)
    assert ((p > 0.5 - 1e-5) & (p < 1 + 1e-5)).all()


def test_support_and_query_points_are_uniform_and_as_many_as_asked_for() -> None:
    train, test = (sinusoids().batch(split, np.arange(100)) for split in ("train", "test"))
    assert train.support.x.shape == train.support.y.shape == train.query.y.shape == (100, 5, 1)
    assert (test.support.x.shape, test.query.x.shape) == ((100, 5, 1), (100, 20, 1))
    assert train.support.x.dtype == train.support.y.dtype == torch.float32
    for side in (train.support, train.query, test.query):
        assert stats.kstest((side.x.flatten().numpy() + 5) / 10, "uniform").pvalue > 1e-4


def test_a_harmonic_is_two_waves_of_which_one_is_twice_as_fast() -> None:
    """At a fixed frequency w, sin and cos of w x and of 2 w x fit every task's points exactly; noise is what is left.

    Their coefficients are a cos p, a sin p, b cos q, b sin q: mean square 1/2 each.
    """
    source = Harmonic(PLAN, torch.device("cpu"), [6.0, 6.0], [-4.0, 4.0], 0.0)
    noisy = Harmonic(PLAN, torch.device("cpu"), [6.0, 6.0], [-4.0, 4.0], 0.3)
    batch, seen = (one.batch("test", np.arange(500)) for one in (source, noisy))
    x, y = (torch.cat([batch.support[k], batch.query[k]], 1)[..., 0].double().numpy() for k in (0, 1))
    basis = np.stack([np.sin(6 * x), np.cos(6 * x), np.sin(12 * x), np.cos(12 * x)], -1)
    found = np.linalg.pinv(basis) @ y[..., None]
    assert np.abs(basis @ found - y[..., None]).max() < 1e-4
    assert np.allclose((found**2).mean(0)[:, 0], 0.5, atol=0.15)
    assert torch.equal(batch.query.x, seen.query.x)
    noise = (seen.query.y - batch.query.y).flatten().numpy()
    assert stats.kstest(noise / 0.3, "norm").pvalue > 1e-4
    inputs = (x - x.mean(1, keepdims=True))[:, -seen.query.y.shape[1] :].flatten()
    assert abs(np.corrcoef(noise, inputs)[0, 1]) < 4 / np.sqrt(len(noise))
    centres = x.mean(1)
    assert 2 < centres.std() < 2.7  # 8 / sqrt(12) = 2.31, and 1 / sqrt(25) from the points
    assert stats.kstest((x - centres[:, None]).flatten() / np.sqrt(24 / 25), "norm").pvalue > 1e-4


KINDS = {  # what is drawn for a function of each kind: numbers of the columns that it is made of
    "sinusoid": (0, 1),
    "harmonic": (0, 1, 2, 3, 4, 5),
    "sine": (1, 2, 3),
    "line": (1, 2),
    "quadratic": (1, 2, 3),
    "cubic": (1, 2, 3, 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_is_made_of_every_number_that_is_drawn_for_it_and_of_no_other(full: Any, kind: str) -> None:
    """One of them in place of another would make two of its coefficients one."""
    source = build_source(resolve(full("algo=maml", f"data={kind if kind in ('sinusoid', 'harmonic') else 'mixture'}")),
                          torch.device("cpu"))  # fmt: skip
    rng = np.random.default_rng(0)
    u, v = rng.random((200, source.numbers)), rng.random((200, source.point_numbers, 5))
    if isinstance(source, Mixture):
        here = choose_family(u) == FAMILIES.index(kind)
        u, v = u[here], v[here]
    x, y = source.points(u, v)
    made_of = []
    for column in range(1 if isinstance(source, Mixture) else 0, source.numbers):
        other = u.copy()
        other[:, column] = rng.random(len(u))
        again, changed = source.points(other, v)
        if not np.allclose(again, x) or not np.allclose(changed, y):
            made_of.append(column)
    assert tuple(made_of) == KINDS[kind]


def gaussian(plan: EpisodePlan = PLAN, kernel: str = "rbf", **changes: object) -> GaussianProcess:
    settings = {"length_scale": [0.4, 0.4], "scale": [1.0, 1.0], "period": [1.0, 1.0], "noise": 0.1, "x": [-2.0, 2.0]}
    return GaussianProcess(plan, torch.device("cpu"), kernel, **(settings | changes))


@pytest.mark.parametrize("kernel", ["rbf", "matern12", "matern32", "matern52", "periodic"])
def test_points_of_a_gaussian_process_have_its_covariance(kernel: str) -> None:
    """Whitened, y is standard normal and independent: L^-1 y, where K = L L^T is written out from the textbook."""
    source = gaussian(kernel=kernel, length_scale=[0.5, 0.5], scale=[1.5, 1.5])
    batch = source.batch("test", np.arange(400))
    x, y = (torch.cat([batch.support[k], batch.query[k]], 1)[..., 0].double() for k in (0, 1))
    d = (x[:, :, None] - x[:, None, :]).abs()
    r = d / 0.5
    correlation = {
        "rbf": torch.exp(-(d**2) / (2 * 0.5**2)),
        "matern12": torch.exp(-r),
        "matern32": (1 + 3**0.5 * r) * torch.exp(-(3**0.5) * r),
        "matern52": (1 + 5**0.5 * r + 5 * r**2 / 3) * torch.exp(-(5**0.5) * r),
        "periodic": torch.exp(-2 * torch.sin(PI * d) ** 2 / 0.5**2),
    }[kernel]
    root = torch.linalg.cholesky(1.5**2 * correlation + 0.1**2 * torch.eye(25, dtype=torch.float64))
    white = torch.linalg.solve_triangular(root, y[..., None], upper=False)[..., 0]
    assert stats.kstest(white.flatten().numpy(), "norm").pvalue > 1e-4
    together = white.T @ white / len(white)
    assert (together - torch.eye(25)).abs().max() < 5 / 400**0.5


def test_hyper_parameters_are_drawn_for_each_task_where_their_range_is_wide() -> None:
    """Values of scale s have variance s^2 + 0.01: over many tasks, those of a uniform s in 1..3 average 13/3 + 0.01."""
    one, many = gaussian(scale=[2.0, 2.0]), gaussian(scale=[1.0, 3.0])
    ys = [source.batch("test", np.arange(3000)).query.y[:, 0, 0].double() for source in (one, many)]
    assert abs(ys[0].square().mean() - 4.01) < 0.5
    assert abs(ys[1].square().mean() - 4.34) < 0.6
    assert stats.kurtosis(ys[0]) < 0.4 < stats.kurtosis(ys[1])  # of a mixture of widths: 3 E s^4 / (E s^2)^2 - 3 = 0.87


@pytest.mark.parametrize("settings", [{"length_scale": [0.0, 1.0]}, {"noise": 0.0}, {"period": [2.0, 1.0]}])
def test_a_gaussian_process_refuses_what_has_no_density(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"data\.{next(iter(settings))}="):
        gaussian(**settings)


def test_the_number_of_support_points_is_drawn_for_each_meta_batch() -> None:
    source = gaussian(replace(PLAN, train=EpisodeShape(0, 3, 7, most_shots=6)))
    firsts = np.arange(0, 400, 4)
    batches = [source.batch("train", np.arange(first, first + 4)) for first in firsts]
    counts = np.bincount([batch.support.x.shape[1] for batch in batches], minlength=7)
    assert counts[:3].sum() == 0
    assert stats.chisquare(counts[3:]).pvalue > 1e-4
    assert {batch.query.x.shape for batch in batches} == {(4, 7, 1)}
    again = source.batch("train", np.arange(8, 10))  # fewer tasks, the same ones
    assert torch.equal(again.support.y, batches[2].support.y[:2])
    assert torch.equal(again.query.y, batches[2].query.y[:2])
    assert source.batch("test", np.arange(4)).support.x.shape == (4, 5, 1)


def test_a_task_depends_on_seed_split_and_number_alone() -> None:
    source, other_seed = sinusoids(), sinusoids(replace(PLAN, seed=1))
    whole = next(source.episodes("val", 4, 6))
    halves = [batch for batch, _ in zip(source.episodes("val", 4, 3), range(2), strict=False)]
    assert torch.equal(whole.query.y, torch.cat([half.query.y for half in halves]))
    assert source.fingerprint("test", 50) == other_seed.fingerprint("test", 50)
    assert source.fingerprint("train", 50) != other_seed.fingerprint("train", 50)


def test_splits_share_no_function_and_the_hash_tells_families_apart() -> None:
    phases = [waves(sinusoids(), split, 100)[1] for split in ("train", "val", "test")]
    assert len(np.unique(np.concatenate(phases).round(5))) > 295  # by chance a few agree to five digits
    assert sinusoids().info.split_sha256 == sinusoids(replace(PLAN, seed=1)).info.split_sha256
    assert len({sinusoids(**{key: [0.2, 0.3]}).info.split_sha256 for key in ("amplitude", "phase", "x")}) == 3


def test_random_numbers_fill_the_unit_interval() -> None:
    numbers = scale_to_unit(draw_bits(0, "test", np.arange(100), 100))
    assert stats.kstest(numbers.flatten(), "uniform").pvalue > 1e-4
    assert scale_to_unit(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0, 1 - 2**-53]


def test_regression_is_scored_by_the_mean_squared_error() -> None:
    """Errors 1, -2, 0, 3: squares 1 + 4 + 0 + 9 = 14, over 4 numbers."""
    scores = objectives.regression(torch.tensor([[1.0, 0], [2, 5]]), torch.tensor([[0.0, 2], [2, 2]]))
    assert {name: float(value) for name, value in scores.items()} == {"loss": 3.5, "mse": 3.5}


@pytest.mark.parametrize("ends", [[1.0], [2.0, 1.0], [1.0, 2.0, 3.0], 3.0])
def test_a_range_is_two_numbers_in_order(ends: list[float]) -> None:
    with pytest.raises(ValueError, match=r"data.phase=.* must be two numbers, the least and the greatest"):
        sinusoids(phase=ends)


def test_functions_have_no_classes() -> None:
    with pytest.raises(ValueError, match="has no meaning where tasks are functions"):
        sinusoids(replace(PLAN, test=EpisodeShape(5, 1, 1)))


def test_a_network_may_be_told_amplitude_and_phase_of_the_same_waves() -> None:
    told, plain = (source.batch("test", np.arange(20)) for source in (sinusoids(told=True), sinusoids()))
    assert sinusoids(told=True).info.input_shape == (3,)
    assert sinusoids(told=True).info.split_sha256 != sinusoids().info.split_sha256
    for side in ("support", "query"):
        (x, y), own = getattr(told, side), getattr(plain, side)
        assert torch.equal(x[..., :1], own.x)
        assert torch.equal(y, own.y)
        assert torch.allclose(x[..., 1:2] * torch.sin(x[..., :1] - x[..., 2:]), y, atol=1e-5)


OF_EPISODES = {"n_way", "k_shot", "n_query", "train", "eval_seed", "wide", "steps"}
"""Settings of how tasks are asked for, which stand beside the hash wherever runs are told apart."""


@pytest.mark.parametrize(
    ("data", "algo"),
    [
        *((name, "maml") for name in ("sinusoid", "harmonic", "gp", "mixture")),
        *((name, "rl2") for name in ("bandits", "tabular_mdp", "navigation", "corners", "gridworld")),
        ("quadratics", "learned_optimizer"), ("sets", "neural_statistician"), ("moons", "dann"),
        ("turned_moons", "metareg"),
    ],
)  # fmt: skip
def test_the_hash_tells_sources_apart_by_every_setting_that_changes_their_tasks(
    full: Callable[..., DictConfig], data: str, algo: str
) -> None:
    config = full(f"data={data}", f"algo={algo}", "logger=none")

    def hash_of(config: DictConfig) -> str:
        return str(build_source(resolve(config), torch.device("cpu")).info.split_sha256)

    here, alike = hash_of(config), []
    for key in settings_of("data", data):
        group, _, name = key.partition(".")
        if group != "data" or re.split(r"[.\[]", name)[0] in OF_EPISODES or found(NO_EFFECT, data, key):
            continue
        for value in other_values(data, key, config):
            changed = config.copy()
            OmegaConf.update(changed, key, value, merge=False)
            with contextlib.suppress(ValueError):  # some values need others beside them
                alike += [f"{key}={value}"] if hash_of(changed) == here else []
    assert not alike
