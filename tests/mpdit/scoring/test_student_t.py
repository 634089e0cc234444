"""Student's t and errors over folds, which are computed without NumPy and SciPy: reading commands import neither."""

import math

import numpy as np
import pytest
from scipy import special

from mpdit.scoring.intervals import jackknife_error
from mpdit.scoring.student_t import chance, t_critical

FREEDOM = [0.5, 1, 1.7, 2, 3, 9, 4.4, 20, 100, 1e3, 1e5]


@pytest.mark.parametrize("freedom", FREEDOM)
@pytest.mark.parametrize("level", [0.5, 0.05, 1e-3, 1e-6])
def test_critical_values_and_chances_are_scipy_s(freedom: float, level: float) -> None:
    wanted = -special.stdtrit(freedom, level / 2)
    assert t_critical(freedom, level) == pytest.approx(wanted, rel=1e-9)
    assert chance(wanted, freedom) == pytest.approx(level, rel=1e-9)
    assert chance(-wanted, freedom) == chance(wanted, freedom)


def test_with_infinitely_many_degrees_of_freedom_it_is_the_normal_distribution() -> None:
    assert t_critical(math.inf) == pytest.approx(1.959963984540054, rel=1e-12)
    assert chance(1.959963984540054, math.inf) == pytest.approx(0.05, rel=1e-12)
    assert chance(0.0, 5) == 1.0


def test_folds_leave_nine_degrees_of_freedom_and_wider_intervals() -> None:
    assert t_critical(9) == pytest.approx(2.262, abs=1e-3)


def test_the_jackknife_s_error_is_numpy_s() -> None:
    for count in (2, 7, 8, 9, 10, 16, 40):
        values = np.random.default_rng(count).normal(size=count)
        assert jackknife_error(values.tolist()) == float(np.sqrt((count - 1) * values.var()))
