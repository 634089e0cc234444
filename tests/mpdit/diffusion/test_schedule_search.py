"""Searched noise levels: what they cost on trajectories that are known, and that none are better."""

import itertools

import pytest
import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Estimate
from mpdit.diffusion.schedule_search import Trajectories, best_path, follow, jump_costs
from mpdit.randomness import normal
from mpdit.schedules import edm_schedule

STD = 0.6


def gaussian(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
    return Estimate(x * STD**2 / (STD**2 + sigma**2), None, None)


def one_point(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
    """The denoiser of data that is one image: every trajectory is straight."""
    return Estimate(torch.full_like(x, 0.3), None, None)


def taught(denoise: object, steps: int = 12) -> Trajectories:
    levels = edm_schedule(steps).tolist()
    x = normal((16, 1, 2, 2), 0, 0, "x").double() * levels[0]
    return follow(denoise, x, levels)  # type: ignore[arg-type]


def test_straight_trajectories_cost_nothing_on_any_grid() -> None:
    teacher = taught(one_point)
    costs = jump_costs(teacher)
    assert float(costs[torch.isfinite(costs)].max()) < 1e-9
    torch.testing.assert_close(teacher.states[-1], torch.full_like(teacher.states[-1], 0.3))


def test_as_many_steps_as_the_teacher_take_all_its_levels() -> None:
    costs = jump_costs(taught(gaussian))
    assert best_path(costs, 12) == list(range(13))
    assert best_path(costs, 1) == [0, 12]


@pytest.mark.parametrize("later", [1.0, 1.15])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_no_other_path_costs_less(steps: int, later: float) -> None:
    costs = jump_costs(taught(gaussian, 9))

    def cost(path: list[int]) -> float:
        return sum(later**at * float(costs[i, j]) for at, (i, j) in enumerate(itertools.pairwise(path)))

    found = best_path(costs, steps, later)
    every = ([0, *middle, 9] for middle in itertools.combinations(range(1, 9), steps - 1))
    assert len(found) == steps + 1
    assert cost(found) == pytest.approx(min(map(cost, every)))


def test_the_teacher_follows_the_exact_flow() -> None:
    teacher = taught(gaussian, 60)
    wanted = teacher.states[0] * STD / (STD**2 + teacher.levels[0] ** 2) ** 0.5
    assert float((teacher.states[-1] - wanted).norm() / wanted.norm()) < 2e-3


def test_searched_levels_are_better_than_edm_s_for_euler_s_steps() -> None:
    teacher = taught(gaussian, 60)
    path = best_path(jump_costs(teacher), 6)

    def missed(levels: list[float]) -> float:
        x = teacher.states[0]
        for sigma, sigma_next in itertools.pairwise(levels):
            denoised = gaussian(x, sigma).denoised
            x = denoised + sigma_next / sigma * (x - denoised)
        return float((x - teacher.states[-1]).norm())

    assert missed([teacher.levels[at] for at in path]) < 0.8 * missed(edm_schedule(6).tolist())
