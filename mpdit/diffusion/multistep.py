"""The weights of multistep methods whose steps are unequal: what a step adds of each evaluation so far.

A polynomial through the evaluations is integrated over the step, exactly. Of n evaluations the order is n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpdit.lazy_modules import lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

TERMS = 24  # of a series that falls as 1/n!


def adams_weights(places: Sequence[float], start: float, end: float) -> list[float]:
    """Return the w of ∫ p(t) dt = Σ w_j·p(places_j) from start to end, for polynomials p of degree < len(places).

    Adams' methods at unequal steps: §III.5 of Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I.
    """
    moments = [1 / (power + 1) for power in range(len(places))]
    length = end - start
    return [length * weight for weight in _solved([(at - start) / length for at in places], moments)]


def exponential_weights(places: Sequence[float], start: float, end: float) -> list[float]:
    """Return the w of ∫ e^(t − end)·p(t) dt = Σ w_j·p(places_j), as `adams_weights` does.

    With t = −ln σ, x_end = e^(start − end)·x_start + Σ w_j·D_j is a step of the probability-flow ODE: an exponential
    integrator, as DPM-Solver++ (arXiv 2211.01095) and UniPC (arXiv 2302.04867) are.
    """
    length = end - start
    moments = _exponential_moments(length, len(places))
    return _solved([(at - start) / length for at in places], moments)


def _exponential_moments(length: float, count: int) -> list[float]:
    """Return ∫ e^(s − h)·(s/h)^k ds from 0 to h = length, for each k < count."""
    if length < 1:  # where the recursion below would lose its digits
        factor = [math.factorial(k) for k in range(count)]
        return [
            length * sum((-length) ** i * factor[k] / math.factorial(k + i + 1) for i in range(TERMS))
            for k in range(count)
        ]
    moments = [-math.expm1(-length)]
    for k in range(1, count):
        moments.append(1 - k / length * moments[-1])
    return moments


def _solved(places: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Return the weights at `places`, in units of the step from its start, that give these moments."""
    powers = np.vander(np.array(places, np.float64), increasing=True).T
    return [float(weight) for weight in np.linalg.solve(powers, np.array(moments))]
