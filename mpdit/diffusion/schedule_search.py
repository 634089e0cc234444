"""Search the noise levels of a few steps along the trajectories of many: GITS, arXiv 2405.11326.

A teacher follows the probability-flow ODE on a fine grid. A jump of one Euler step from one of its levels to another
misses its trajectory by a distance; a dynamic programme finds the few jumps whose distances add up to least.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mpdit.diffusion.multistep import adams_weights
from mpdit.diffusion.samplers.registry import Denoise

LATER = 1.15  # how much more a jump weighs than the one before it: what it misses, no later one can mend
HISTORY = 4  # slopes that the teacher extrapolates


class Trajectories(NamedTuple):
    """What a teacher went through: its states, one more than its slopes, and its levels, the last of them 0."""

    states: list[Tensor]
    slopes: list[Tensor]
    levels: list[float]


def follow(denoise: Denoise, x: Tensor, levels: Sequence[float]) -> Trajectories:
    """Follow the ODE with Adams–Bashforth steps from x (batch, channels, height, width), at levels[0], to 0."""
    states, slopes = [x], list[Tensor]()
    for at, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        slopes.append((x - denoise(x, sigma).denoised) / sigma)
        places = list(reversed(levels[max(0, at + 1 - HISTORY) : at + 1]))
        for weight, slope in zip(adams_weights(places, sigma, sigma_next), reversed(slopes[-HISTORY:]), strict=True):
            x = x + weight * slope
        states.append(x)
    return Trajectories(states, slopes, list(levels))


def jump_costs(teacher: Trajectories) -> Tensor:
    """Return how far one Euler step from level i to level j misses the teacher's state there, the mean over the batch.

    (levels, levels) float64: root mean square over pixels; infinite where j does not come after i.
    """
    count = len(teacher.levels)
    costs = torch.full((count, count), torch.inf, dtype=torch.float64)
    for i, j in itertools.combinations(range(count), 2):
        reached = teacher.states[i] + (teacher.levels[j] - teacher.levels[i]) * teacher.slopes[i]
        costs[i, j] = (reached - teacher.states[j]).double().square().mean((1, 2, 3)).sqrt().mean()
    return costs


def best_path(costs: Tensor, steps: int, later: float = LATER) -> list[int]:
    """Return the path of so many jumps from the first level to the last of least cost: (steps + 1) ascending indices.

    costs: (levels, levels), of a jump from row to column. later: the factor of each jump's cost on the next one's.
    steps: at most levels − 1.
    """
    count = len(costs)
    remaining = torch.full((count,), torch.inf, dtype=torch.float64)
    remaining[-1] = 0  # the cost from each level to the end, with as many jumps as have been added so far
    choices = []
    for _ in range(steps):
        total = costs + later * remaining
        remaining, choice = total.min(dim=1)
        choices.append(choice)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return path
