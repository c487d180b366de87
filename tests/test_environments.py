"""Environments: what is derived from their definitions, exact optima, and gymnasium's view of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import metarun, results_of
from omegaconf import DictConfig
from test_contract import acts, choices, parts_of

from metarun.algos.control.bandit_optimum import BanditOptimum, count_states
from metarun.algos.control.gittins import find_indices
from metarun.algos.control.mdp_rules import Model, plan
from metarun.core.control import Control
from metarun.core.scores import estimate
from metarun.data.gymnasium_tasks import _read_spaces
from metarun.settings.build import build_source
from metarun.settings.resolve import resolve

Settings = Callable[..., DictConfig]
SIMULATED = [name for name in choices("data") if acts("data", name) and name != "half_cheetah_direction"]


@pytest.fixture
def source(settings: Settings) -> Callable[..., Any]:
    return lambda data, *words: build_source(
        resolve(settings("algo=rl2", f"data={data}", *words), warn=False), torch.device("cpu")
    )


def act(batch: Any, n: int, episode: int, choose: Callable[[Any, int], torch.Tensor]) -> list[Any]:
    """Start n episodes and act to their end; what is shown, paid, and whether it is over, at each step."""
    found = [(batch.reset(n, episode), torch.zeros(batch.n_tasks, n), torch.zeros(batch.n_tasks, n, dtype=torch.bool))]
    for step in range(batch.control.length):
        found.append(tuple(batch.step(choose(found, step))))
    return found


def any_actions(batch: Any, n: int, episode: int) -> Callable[[Any, int], torch.Tensor]:
    control = batch.control
    u = batch.draw(n, episode, 1 if control.discrete else control.actions)  # [B, n, T, A]
    return lambda _, step: (u[:, :, step, 0] * control.actions).long() if control.discrete else u[:, :, step] - 0.5


@pytest.mark.parametrize("data", SIMULATED)
def test_an_episode_is_a_function_of_seed_split_task_and_its_number(source: Callable[..., Any], data: str) -> None:
    """Not of the tasks and episodes beside it. Whoever starts at another task, or draws more at once, sees the same."""
    tasks = source(data)
    batch = next(tasks.environments("val", 0, 4))
    whole = act(batch, 3, 5, any_actions(batch, 3, 5))
    part = next(tasks.environments("val", 2, 2))
    for one, other in zip(whole, act(part, 1, 6, any_actions(part, 1, 6)), strict=True):
        assert all(torch.equal(a[2:, 1:2], b) for a, b in zip(one, other, strict=True))
    cut = batch.tasks(1, 3)
    for one, other in zip(whole, act(cut, 3, 5, any_actions(cut, 3, 5)), strict=True):
        assert all(torch.equal(a[1:3], b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(batch.draw(3, 5, 2), batch.draw(3, 4, 2))
    assert not torch.equal(batch.draw(3, 5, 2), next(tasks.environments("test", 0, 4)).draw(3, 5, 2))


@pytest.mark.parametrize("data", SIMULATED)
def test_an_episode_ends_and_pays_nothing_afterwards(source: Callable[..., Any], data: str) -> None:
    batch = next(source(data).environments("train", 0, 3))
    steps = act(batch, 2, 0, any_actions(batch, 2, 0))
    assert len(steps) == batch.control.length + 1
    assert steps[-1][2].all()
    for before, after in itertools.pairwise(steps[1:]):
        assert (after[2] | ~before[2]).all(), "over is over"
        assert (after[1][before[2]] == 0).all()
    with pytest.raises(AssertionError, match="the episodes are over"):
        batch.step(any_actions(batch, 2, 0)(steps, 0))


@pytest.mark.parametrize("data", sorted({*SIMULATED} - {"gymnasium"}))
def test_episodes_go_on_where_the_run_is(settings: Settings, data: str) -> None:
    """On the device `meta` nothing can be mixed with the CPU's. Gymnasium's environments are on the CPU."""
    config = resolve(settings("algo=rl2", f"data={data}"), warn=False)
    batch = next(build_source(config, torch.device("meta")).environments("train", 0, 2))
    found = [*batch.facts.values(), *itertools.chain(*act(batch, 3, 1, any_actions(batch, 3, 1))[1:])]
    assert {tensor.device.type for tensor in found} == {"meta"}


def test_an_arm_pays_as_often_as_its_mean_says(source: Callable[..., Any]) -> None:
    """4000 pulls of each arm of two tasks: within 4 standard errors of at most 0.0079."""
    batch = next(source("bandits", "data.arms=3").environments("train", 0, 2))
    assert batch.means.shape == (2, 3)
    for arm in range(3):
        batch.reset(4000, 0)
        paid = batch.step(torch.full((2, 4000), arm)).reward.mean(1)
        assert torch.allclose(paid, batch.means[:, arm], atol=4 * 0.5 / 4000**0.5)


def test_arms_are_spread_evenly(source: Callable[..., Any]) -> None:
    means = next(source("bandits").environments("train", 0, 4000)).means.flatten()
    for share in (0.1, 0.5, 0.9):
        assert (means < share).double().mean() == pytest.approx(share, abs=4 * (share * (1 - share) / 20000) ** 0.5)


def test_a_process_goes_where_its_transitions_say_and_pays_its_means(source: Callable[..., Any]) -> None:
    """From state 0 with action 1, 20,000 times: shares within 4 standard errors, pay of deviation 1 around its mean."""
    batch = next(source("tabular_mdp", "data.states=4", "data.actions=2", "data.length=1").environments("train", 0, 2))
    assert torch.allclose(batch.transition.sum(-1), torch.ones(2, 4, 2))
    batch.reset(20000, 0)
    moved = batch.step(torch.ones(2, 20000, dtype=torch.int64))
    share = batch.transition[:, 0, 1]
    assert ((moved.observation.mean(1) - share).abs() < 4 * (share * (1 - share) / 20000).sqrt() + 1e-3).all()
    assert torch.allclose(moved.reward.mean(1), batch.pays[:, 0, 1], atol=4 / 20000**0.5)
    assert torch.allclose(moved.reward.std(1), torch.ones(2), atol=0.03)


def test_a_point_that_goes_straight_to_its_goal_is_there_in_as_many_strides_as_it_takes(
    source: Callable[..., Any],
) -> None:
    """The goal is at most 0.5 away along an axis, which is five strides of 0.1; standing still pays -0.38 a step."""
    batch = next(source("navigation", "data.length=20").environments("test", 0, 400))
    steps = act(batch, 1, 0, lambda found, _: batch.goal[:, None] - found[-1][0])
    away = (batch.goal.abs().amax(-1) / 0.1 - 0.1).ceil()  # the last stride may leave 0.01
    took = torch.stack([~over for _, _, over in steps]).sum(0)[:, 0]
    assert (took - away).abs().max() <= 1
    assert (steps[-1][0][:, 0] - batch.goal).abs().max() < 0.01 + 1e-6
    still = act(batch, 1, 1, lambda found, _: torch.zeros(400, 1, 2))
    paid = torch.stack([reward for _, reward, _ in still]).sum(0)[:, 0]
    begun = batch.goal.abs().amax(-1) >= 0.01  # else the first step is the last
    assert torch.allclose(paid[begun], -20 * batch.goal.norm(dim=-1)[begun], atol=1e-4)
    assert paid.mean() / 20 == pytest.approx(-0.3826, abs=0.03)  # (sqrt 2 + ln(1 + sqrt 2)) / 6


def test_a_long_move_is_cut_to_a_stride(source: Callable[..., Any]) -> None:
    batch = next(source("navigation", "data.stride=0.3").environments("test", 0, 2))
    batch.reset(1, 0)
    assert torch.allclose(batch.step(torch.tensor([[[9.0, -0.2]], [[-9.0, 0.1]]])).observation,
                          torch.tensor([[[0.3, -0.2]], [[-0.3, 0.1]]]))  # fmt: skip


def test_only_the_right_corner_pays_and_all_the_way_to_it(source: Callable[..., Any]) -> None:
    """Straight to the goal from |x| + |y| = 0.5 on, the pays add up to the way; to another corner they are nothing."""
    batch = next(source("corners", "data.length=30").environments("test", 0, 40))
    assert batch.goal.abs().eq(2).all()
    assert len({tuple(goal) for goal in batch.goal.tolist()}) == 4
    towards = {
        side: act(batch, 1, 0, lambda found, _, side=side: side * batch.goal[:, None] - found[-1][0])
        for side in (1, -1)
    }
    paid = {side: torch.stack([reward for _, reward, _ in steps]).sum(0) for side, steps in towards.items()}
    assert (paid[-1] == 0).all()
    assert ((paid[1] > 8**0.5 - 1) & (paid[1] < 8**0.5 + 0.3)).all()
    assert torch.allclose(towards[1][-1][0][:, 0], batch.goal)
    dense = next(source("corners", "data.reward=dense").environments("test", 0, 40))
    start = dense.reset(1, 0)
    reward = dense.step(torch.zeros(40, 1, 2)).reward
    assert torch.allclose(reward, -(start - dense.goal[:, None]).norm(dim=-1))


def test_a_loop_across_the_border_pays_without_end_in_the_papers_reward_and_nothing_by_a_potential(
    source: Callable[..., Any],
) -> None:
    """To a place beside the border of the goal's side, then over it and back 20 times. The goal is (2, 2) for a point
    whose axes are turned that way: over the border counts and back does not, which a potential charges."""
    way = [(0.2, 0.0)] * 4 + [(0.0, 0.2), (0.0, -0.2)] * 20
    sums = {}
    for reward in ("sparse", "potential"):
        batch = next(source("corners", "data.length=44", f"data.reward={reward}").environments("test", 0, 10))
        batch.reset(1, 0)
        batch.place = batch.goal.sign()[:, None] * torch.tensor([0.0, -0.1])
        moves = [batch.goal.sign()[:, None] * torch.tensor(move) for move in way]
        sums[reward] = torch.stack([batch.step(move).reward for move in moves]).sum(0)
    once = math.hypot(1.2, 2.1) - math.hypot(1.2, 1.9)
    assert torch.allclose(sums["sparse"], torch.tensor(20 * once), atol=1e-4)
    assert torch.allclose(sums["potential"], torch.tensor(0.0), atol=1e-4)


def test_the_potential_of_a_corner_is_how_much_nearer_the_point_is(source: Callable[..., Any]) -> None:
    batch = next(source("corners", "data.length=30", "data.reward=potential").environments("test", 0, 40))
    steps = act(batch, 1, 0, lambda found, _: batch.goal[:, None] - found[-1][0])
    paid = torch.stack([reward for _, reward, _ in steps]).sum(0)
    assert torch.allclose(paid, torch.tensor(8**0.5), atol=1e-4)
    first = next(step for step, (_, reward, _) in enumerate(steps) if reward[0] > 0)
    assert steps[first][0][0].abs().sum() >= 0.5


def test_a_cell_pays_where_the_goal_is_and_walls_hold(source: Callable[..., Any]) -> None:
    """Right and up by what the goal says, then staying: the last steps pay 1, those before -0.1."""
    batch = next(source("gridworld").environments("test", 0, 300))
    goals = {tuple(goal) for goal in batch.goal.tolist()}
    assert len(goals) == 21
    assert not goals & {(0, 0), (0, 1), (1, 0), (1, 1)}
    way = batch.goal.sum(-1)

    def go(found: Any, step: int) -> torch.Tensor:
        right, up = batch.goal.unbind(-1)
        return torch.where(step < right, 2, torch.where(step < right + up, 1, 0))[:, None]

    steps = act(batch, 1, 0, go)
    paid = torch.stack([reward for _, reward, _ in steps]).sum(0)[:, 0]
    assert torch.allclose(paid, (15 - way + 1) - 0.1 * (way - 1).float())
    steps = act(batch, 1, 0, lambda found, step: torch.full((300, 1), 2))
    assert torch.equal(steps[-1][0][0, 0], torch.tensor([1.0, -1.0]))


RETURNS = {  # (method, arms, pulls, settings): the mean return that other code found, and how far it may be off
    ("random_actions", 5, 10, ""): (5.0, 0.1),
    ("thompson", 5, 10, ""): (5.85, 0.1),
    ("greedy", 5, 10, ""): (6.65, 0.1),
    ("gittins", 5, 10, "algo.discount=0.9"): (6.65, 0.1),
    ("ucb1", 5, 10, "algo.bonus=0.05"): (6.68, 0.1),
    ("ucb1", 5, 10, "algo.bonus=1"): (5.85, 0.1),
    ("bandit_optimum", 5, 10, ""): (6.66, 0.1),
    ("thompson", 5, 100, ""): (75.0, 1.2),
    ("greedy", 5, 100, ""): (75.7, 1.2),
    ("gittins", 5, 100, "algo.discount=0.99"): (78.6, 1.2),
    ("ucb1", 5, 100, "algo.bonus=0.2"): (78.3, 1.2),
}


@pytest.mark.parametrize(("algo", "arms", "pulls", "word"), RETURNS, ids=lambda value: str(value))
def test_rules_reach_what_was_computed_elsewhere(
    settings: Settings, algo: str, arms: int, pulls: int, word: str
) -> None:
    """4000 bandits of 10 pulls, or 1200 of 100: the allowance is 2.5 to 4 standard errors."""
    words = [f"data.arms={arms}", f"data.episodes={pulls}", *([word] if word else [])]
    parts = parts_of(settings(f"algo={algo}", "data=bandits", *words))
    learner, n = parts.learner, 4000 if pulls == 10 else 1200
    found = learner.evaluate(next(learner.eval_stream(parts.source, "test", 0, n)))["return"]
    mean, allowance = RETURNS[algo, arms, pulls, word]
    assert found.mean().item() == pytest.approx(mean, abs=allowance)


@pytest.mark.parametrize(
    ("arms", "pulls", "value"), [(5, 10, 6.6600), (2, 10, 6.0218), (3, 10, 6.4096), (10, 10, 6.7140), (50, 10, 6.7140)]
)
def test_the_exact_optimum_of_bandits(arms: int, pulls: int, value: float) -> None:
    assert BanditOptimum(Control(1, arms, True, 1, pulls)).value == pytest.approx(value, abs=5e-5)


def test_one_pull_of_one_of_two_arms_and_two_pulls_by_hand() -> None:
    """One pull: 1/2. Two: after a success the same arm pays 2/3, after a failure the other pays 1/2: 1/2 + 7/12."""
    assert BanditOptimum(Control(1, 2, True, 1, 1)).value == pytest.approx(1 / 2)
    assert BanditOptimum(Control(1, 2, True, 1, 2)).value == pytest.approx(1 / 2 + (2 / 3 + 1 / 2) / 2)


def test_an_optimum_of_too_many_states_is_refused_before_it_is_begun() -> None:
    assert count_states(1, 2) == 6  # nothing, (1,0), (0,1), (2,0), (1,1), (0,2)
    assert count_states(2, 2) == 9  # and two arms of one pull each
    with pytest.raises(
        ValueError, match=r"the exact optimum of 5 arms and 100 pulls has .* states, .* data.episodes=10"
    ):
        BanditOptimum(Control(1, 5, True, 1, 100))


def test_gittins_indices_are_those_of_the_tables() -> None:
    """Gittins, Glazebrook, Weber 2011, Table 8.4, of discount 0.9; the grid of payments leaves 0.002."""
    table = find_indices(22, 0.9)
    for (won, lost), index in {(1, 1): 0.7029, (2, 1): 0.8001, (1, 2): 0.5001}.items():
        assert table[won, lost] == pytest.approx(index, abs=2e-3)
    assert np.all(np.diff(table[1:8, 5]) > 0)  # one more success is worth more


def test_plans_are_between_chance_and_what_the_process_allows(settings: Settings) -> None:
    """Random actions earn 1 a step, 100 in ten episodes of ten steps; whoever knows the process about 220."""
    found = {}
    for algo in ("random_actions", "psrl", "epsilon_greedy", "value_iteration"):
        parts = parts_of(settings(f"algo={algo}", "data=tabular_mdp"))
        found[algo] = estimate(
            parts.learner.evaluate(next(parts.learner.eval_stream(parts.source, "test", 0, 500)))["return"].numpy()
        )
    means = [one.mean for one in found.values()]
    assert means == sorted(means)
    assert found["random_actions"].mean == pytest.approx(100, abs=2 * found["random_actions"].ci95)
    assert found["random_actions"].mean / found["value_iteration"].mean == pytest.approx(0.46, abs=0.02)
    assert means[1] > means[0] + 20


def test_backward_induction_by_hand() -> None:
    """Two states, two steps. Action 0 stays and pays 1 in state 0; action 1 goes to state 1, where any action pays 3:
    with one step left it is best to stay, with two to go."""
    stay, go = torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    model = Model(torch.stack([stay, go], 1)[None], torch.tensor([[[1.0, 0.0], [3.0, 3.0]]]))
    assert [actions[0, 0].item() for actions in plan(model, 2)] == [1, 0]


def test_random_actions_on_a_plane_are_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match="chooses among discrete actions"):
        parts_of(settings("algo=random_actions", "data=navigation"))


@pytest.mark.parametrize("data", SIMULATED)
def test_gymnasiums_checker_passes_each_of_them(source: Callable[..., Any], data: str) -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from metarun.data.gymnasium_face import TaskEnv, TaskVectorEnv

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for advice in (".*value is -?infinity.*", ".*recommend using a symmetric and normalized space.*"):
            warnings.filterwarnings("ignore", advice)
        face = TaskEnv(source(data))
        check_env(face, skip_render_check=True)
    control, many = face.source.control, TaskVectorEnv(face.source, 2)
    assert face.observation_space.shape == (control.observation,)
    assert face.action_space == many.single_action_space
    if control.discrete:
        assert (face.action_space.start, face.action_space.n) == (0, control.actions)
    else:
        assert face.action_space.shape == (control.actions,)
        assert (face.action_space.high == (np.inf if control.bound is None else control.bound)).all()
        assert (face.action_space.low == -face.action_space.high).all()


def test_gymnasium_sees_the_same_task_alone_and_beside_others(source: Callable[..., Any]) -> None:
    pytest.importorskip("gymnasium")
    from metarun.data.gymnasium_face import TaskEnv, TaskVectorEnv

    tasks = source("navigation", "data.length=5")
    alone, beside = TaskEnv(tasks), TaskVectorEnv(tasks, 3)
    shown, facts = alone.reset(seed=3, options={"task": 2})
    together, _ = beside.reset(seed=3)
    assert facts == {"task": 2}
    assert np.array_equal(shown, together[2])
    for step in range(5):
        actions = beside.action_space.sample()
        seen, paid, ended, cut, _ = beside.step(actions)
        one = alone.step(actions[2])
        assert np.array_equal(one[0], seen[2])
        assert one[1:4] == (pytest.approx(paid[2]), ended[2], cut[2])
        assert cut.tolist() == [step == 4] * 3
    with pytest.raises(ValueError, match="all episodes are reset together"):
        beside.reset(options={"reset_mask": np.array([True, False, True])})


def test_environments_of_gymnasium_are_tasks_that_differ_in_what_they_are_made_with(source: Callable[..., Any]) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    tasks = source("gymnasium", "data.length=3")
    batch = next(tasks.environments("train", 0, 3))
    batch.reset(2, 0)
    gravity = [worlds[0].unwrapped.g for worlds in batch.made]
    assert len(set(gravity)) == 3
    assert all(5 <= one < 15 for one in gravity)
    assert tasks.info.control == Control(3, 1, False, 3, 2, 2.0)
    carts = source("gymnasium", "data.id=CartPole-v1", "data.tasks=[{sutton_barto_reward:[0,1]}]")
    assert carts.info.control == Control(4, 2, True, 200, 2)
    same = next(source("gymnasium", "data.tasks=[{g:[2,2]}]").environments("train", 0, 2))
    same.reset(1, 0)
    assert [worlds[0].unwrapped.g for worlds in same.made] == [2, 2]
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    uncut = _read_spaces(SimpleNamespace(observation_space=box, action_space=box), "uncut")
    assert uncut == (2, 2, False, None)  # an infinite bound would be the first deviation of a policy
    for word, said in (
        ("data.id=Nothing-v0", "data.id=Nothing-v0 .* cannot be made"),
        ("data.tasks=[{nothing:[1,2]}]", "cannot be made: .*nothing"),
        ("data.tasks=[{g:[2,1]}]", r"data.tasks: g=\[2, 1\] must be the least and the greatest value"),
    ):
        with pytest.raises(ValueError, match=said):
            source("gymnasium", word)


@pytest.fixture
def cheetahs(source: Callable[..., Any]) -> Any:
    pytest.importorskip("mujoco")
    return source("half_cheetah_direction", "data.length=5", "data.episodes=2")


def test_a_cheetah_is_paid_in_the_direction_of_its_task(cheetahs: Any) -> None:
    """The same forces in the same episode: the pay of the one is the cost of the forces less that of the other."""
    batch = next(cheetahs.environments("train", 0, 8))
    assert cheetahs.info.control == Control(17, 6, False, 5, 2, 1.0)
    signs = []
    for place in range(8):
        world = batch.open[place]()
        world.reset(seed=0)
        _, reward, _, _, facts = world.step(np.full(6, 0.5, np.float32))
        signs.append(round((reward - facts["reward_ctrl"]) / facts["reward_forward"]))
    assert set(signs) == {-1, 1}
    assert batch.reset(2, 0).shape == (8, 2, 17)


@pytest.mark.slow
def test_a_run_on_cheetahs_ends_with_numbers(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("mujoco")
    words = ["algo=maml_rl", "data=half_cheetah_direction", "data.length=20", "data.episodes=4", "run.steps=3"]
    words += ["run.meta_batch_size=4", "run.val_tasks=2", "run.test_tasks=4", "logger=none", "hydra.run.dir=r"]
    assert metarun(*words, cwd=tmp_path, cache=cache)[0] == 0
    results = results_of(tmp_path / "r")
    assert (results["status"], results["test"]["return"]["n_tasks"]) == ("finished", 4)
    assert {"return@0", "return@1", "return@2", "return@greedy"} <= results["test"].keys()
