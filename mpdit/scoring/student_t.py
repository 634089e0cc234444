"""Student's t distribution in plain Python: importing SciPy's takes longer than a whole reading command."""

import math
from functools import lru_cache
from statistics import NormalDist

MOST_STEPS = 100
PRECISION = 1e-13  # relative, of a critical value


def chance(t: float, freedom: float) -> float:
    """Return the probability that Student's t is beyond ±t.

    I_x(ν/2, ½) at x = ν/(ν + t²), DLMF 8.17.22; the normal distribution's for infinitely many degrees of freedom.
    """
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    if t == 0:
        return 1.0
    a, b, x = freedom / 2, 0.5, freedom / (freedom + t * t)
    beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * (2 * math.log(abs(t)) - math.log(freedom + t * t)) - beta)
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, t * t / (freedom + t * t)) / b


@lru_cache(maxsize=4096)
def t_critical(freedom: float, level: float = 0.05) -> float:
    """Return Student's t that is exceeded in either direction with probability `level`.

    At 5 % a value may be off by so many standard errors: by 2.26, not 1.96, with the 9 degrees of freedom of ten folds.
    Newton's method for ln t, in which the tail is nearly a straight line; it starts at the normal value.
    """
    t = NormalDist().inv_cdf(1 - level / 2)
    if math.isinf(freedom):
        return t
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    for _ in range(MOST_STEPS):
        density = scale * math.exp(-(freedom + 1) / 2 * math.log1p(t * t / freedom))
        tail = chance(t, freedom)
        step = math.log(tail / level) * tail / (2 * density * t)
        t *= math.exp(step)
        if abs(step) < PRECISION:
            break
    return t


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + term * d), 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value
