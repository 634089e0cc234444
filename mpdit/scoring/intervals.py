"""Standard errors with their degrees of freedom, and the intervals that follow. Imports neither torch nor NumPy."""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import stdev

from mpdit.scoring.student_t import t_critical

FOLDS = 10  # disjoint groups of samples, the same for every cell
CONFIDENCE = 0.95


@dataclass(frozen=True)
class StandardError:
    """A standard error and the degrees of freedom that it was estimated with."""

    error: float
    freedom: float

    @property
    def interval(self) -> float:
        """Half of the 95 % interval."""
        return t_critical(self.freedom, 1 - CONFIDENCE) * self.error


def jackknife_error(left_out: Sequence[float]) -> float:
    """Return the standard error of the delete-a-fold jackknife over k folds, √((k − 1)·variance).

    It is the error over the samples alone, not over training seeds.

    Args:
        left_out: a value without each fold; for a difference of two cells on the same noise, the differences.
    """
    count = len(left_out)
    mean = _sum(left_out) / count
    return math.sqrt((count - 1) * (_sum([(value - mean) * (value - mean) for value in left_out]) / count))


def _sum(values: Sequence[float]) -> float:
    """Add some numbers (128 at most) in NumPy's order, so that errors stay those that older releases wrote."""
    even = len(values) - len(values) % 8
    total = 0.0
    if even:
        rows = zip(*(values[at : at + 8] for at in range(0, even, 8)), strict=True)
        a, b, c, d, e, f, g, h = (reduce(operator.add, row) for row in rows)
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    return reduce(operator.add, values[even:], total)


def error_over_samples(left_out: Sequence[float]) -> StandardError:
    """Return the jackknife's error; k folds have k − 1 degrees of freedom."""
    return StandardError(jackknife_error(left_out), len(left_out) - 1)


def error_over_seeds(values: Sequence[float]) -> StandardError:
    """Return the error of the mean over n training seeds, with n − 1 degrees of freedom; n is at least 2."""
    return StandardError(stdev(values) / math.sqrt(len(values)), len(values) - 1)


def combined(parts: Iterable[StandardError]) -> StandardError:
    """Return the error of a sum of independent parts; degrees of freedom by Welch and Satterthwaite."""
    known = [part for part in parts if part.error]
    if len(known) == 1:
        return known[0]  # to the last digit
    variance = sum(part.error**2 for part in known)
    weighed = sum(part.error**4 / part.freedom for part in known)
    return StandardError(math.sqrt(variance), variance**2 / weighed if weighed else math.inf)
