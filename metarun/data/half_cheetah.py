from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from metarun.core.ranges import PositiveInt
from metarun.core.tasks import EpisodePlan
from metarun.data.gymnasium_tasks import GymnasiumTasks, Values, import_gymnasium

if TYPE_CHECKING:
    import gymnasium


class HalfCheetahDirection(GymnasiumTasks):
    """MuJoCo's half-cheetah that is to run forward in one half of the tasks and backward in the other.

    A step pays the velocity in the task's direction, less the cost of the forces. The paper weighs this cost by 0.05,
    gymnasium's environment by 0.1.

    Args:
        plan, device: from the runner.
        length: steps of an episode.
        episodes: episodes that a learner has before each step of adaptation.
    Raises: ValueError if gymnasium[mujoco] is not installed.
    Reference: Finn, Abbeel, Levine. MAML. ICML 2017. arXiv:1703.03400, section 5.3.
    """

    def __init__(self, plan: EpisodePlan, device: torch.device, length: PositiveInt, episodes: PositiveInt) -> None:
        super().__init__(plan, device, "HalfCheetah-v5", [{"backward": [0, 1]}], length, episodes)

    def open(self, values: Values) -> gymnasium.Env[Any, Any]:
        gymnasium = import_gymnasium()
        world, sign = super().open({}), 1 - 2 * int(values["backward"])

        class Directed(gymnasium.Wrapper):  # type: ignore[misc, name-defined]
            def step(self, action: Any) -> Any:
                observation, _, ended, cut, facts = self.env.step(action)
                return observation, sign * facts["reward_forward"] + facts["reward_ctrl"], ended, cut, facts

        return Directed(world)
