"""How sure a ranking is: the error of a value and of a difference, and what would separate two rows that are tied."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

from mpdit.scoring.intervals import (
    CONFIDENCE,
    FOLDS,
    StandardError,
    combined,
    error_over_samples,
    error_over_seeds,
)
from mpdit.scoring.student_t import chance, t_critical
from sweeps.results.seed_spread import MOST_FREEDOM, SeedSpread

MANY_SAMPLES, MANY_SEEDS = 1_000_000, 100  # what would be needed beyond these is no difference worth finding
NONE = StandardError(0.0, math.inf)


def mean_of(values: Sequence[float]) -> float:
    """The mean; `statistics.mean` takes ten microseconds, also for the one value that most points have."""
    return values[0] if len(values) == 1 else mean(values)


@dataclass(frozen=True)
class Measured:
    """The measurements of a row: its value for each seed, and the means over seeds of its values without each fold."""

    values: dict[int, float]
    left_out: list[float] | None
    sampling_error: float | None  # used where there are no folds
    samples: int
    larger_is_better: bool = False

    @cached_property
    def value(self) -> float:
        """The mean over seeds."""
        return mean_of(list(self.values.values()))

    @cached_property
    def sampling(self) -> StandardError | None:
        """The error over samples; None where it is not known."""
        if self.left_out:
            return error_over_samples(self.left_out)
        return None if self.sampling_error is None else StandardError(self.sampling_error, FOLDS - 1)


@dataclass(frozen=True)
class Difference:
    """How much worse a row is than the best, and the two parts of the standard error of that difference.

    sampling: from the draw of noise. training: from the training seed. seeds: how many both rows share.
    """

    value: float
    sampling: StandardError
    training: StandardError
    seeds: int

    @property
    def total(self) -> StandardError:
        """Both parts together."""
        return combined((self.sampling, self.training))

    @property
    def chance(self) -> float:
        """The probability of a difference as large as this where there is none."""
        total = self.total
        if self.value <= 0:
            return 1.0
        return chance(self.value / total.error, total.freedom) if total.error else 0.0


def value_error(measured: Measured) -> StandardError | None:
    """The standard error of a row's value: over samples, and over training seeds where there are several."""
    values = list(measured.values.values())
    parts = [measured.sampling, error_over_seeds(values) if len(values) > 1 else None]
    known = [part for part in parts if part is not None]
    return combined(known) if known else None


def difference(row: Measured, best: Measured, same_training: bool, spread: SeedSpread | None) -> Difference | None:
    """By how much a row is worse than the best, paired: on the same folds of the same noise and the same seeds.

    Args:
        row: The row; its value and the best's are costs: the smaller the better.
        best: The best row.
        same_training: Whether the two are cells of one training.
        spread: How far another training seed moves a value, if that is known.

    Returns:
        The difference; None where no error is known.
    """
    training = _training(row, best, same_training, spread)
    if row.left_out and best.left_out and row.samples == best.samples:
        gaps = [a - b for a, b in zip(row.left_out, best.left_out, strict=True)]
        sampling: StandardError | None = error_over_samples(gaps)
    else:
        parts = [part for part in (row.sampling, best.sampling) if part is not None]
        sampling = combined(parts) if len(parts) == 2 else None
    if training is None or (sampling is None and training is NONE):
        return None
    worse = best.value - row.value if row.larger_is_better else row.value - best.value
    return Difference(worse, sampling or NONE, training, max(1, len(_gaps(row, best))))


def _gaps(row: Measured, best: Measured) -> list[float]:
    """The differences of the seeds that both have."""
    return [row.values[seed] - best.values[seed] for seed in row.values if seed in best.values]


def _training(row: Measured, best: Measured, same_training: bool, spread: SeedSpread | None) -> StandardError | None:
    """The error of a difference from the training seeds; None where it is not known.

    Between two trainings, the variance of the pairs of seeds is pooled with what `spread` says of one pair. Its share
    is of the logarithmic mean of the two values, so that the test is one of their logarithms.
    """
    gaps = _gaps(row, best)
    own = error_over_seeds(gaps) if len(gaps) > 1 else None
    if same_training:
        return own or NONE
    scale = _logarithmic_mean(row.value, best.value)
    if spread is None or scale is None:
        return own
    pairs = len(gaps) or min(len(row.values), len(best.values))
    freedom, seen = min(spread.freedom, MOST_FREEDOM), len(gaps) - 1 if own else 0
    variance = freedom * 2 * (spread.share * scale) ** 2 + (seen * pairs * own.error**2 if own else 0.0)
    known = min(freedom + seen, spread.freedom)  # of which these pairs are a part already
    return StandardError(math.sqrt(variance / (freedom + seen) / pairs), known)


def _logarithmic_mean(a: float, b: float) -> float | None:
    """(a − b)/ln(a/b); None where a value is not positive."""
    if min(a, b) <= 0:
        return None
    ratio = math.log(a / b)
    return (a - b) / ratio if abs(ratio) > 1e-6 else a


def ties(differences: Sequence[Difference | None]) -> tuple[list[bool], float]:
    """Find which rows cannot be told from the best, at 95 % confidence for all of them together.

    The best was chosen by the same numbers, so that each pair of the rows could have been the one compared: of m rows
    one is told apart where the probability of its difference, times the m·(m − 1)/2 pairs, is below 5 % (Bonferroni).
    The surest comes first, and what has been told apart is no longer among the m (step-down, as Holm's procedure).

    Args:
        differences: Of each row but the best from the best; None where no error is known, which ties nothing.

    Returns:
        Whether each row is tied, and the level at which the last comparison was made.
    """
    found = sorted((each.chance, at) for at, each in enumerate(differences) if each is not None)
    tied, rows = [False] * len(differences), len(found) + 1
    level = 1 - CONFIDENCE
    for told, (probability, _) in enumerate(found):
        left = rows - told
        level = (1 - CONFIDENCE) / (left * (left - 1) / 2)
        if probability >= level:
            for _, at in found[told:]:
                tied[at] = True
            break
    return tied, level


def what_would_tell_apart(found: Difference, samples: int, level: float) -> str:
    """How many samples or seeds would make a tied difference, if it stays the same, larger than its error."""
    if found.seeds == 1 and found.training.error:
        return "more seeds"
    total = found.total
    times = (t_critical(total.freedom, level) * total.error / found.value) ** 2 if found.value else math.inf
    if found.training.error > found.sampling.error:
        seeds = found.seeds * times
        return f"about {math.ceil(seeds)} seeds" if seeds <= MANY_SEEDS else f"more than {MANY_SEEDS} seeds"
    needed = samples * times
    return f"about {_rounded(needed):,} samples" if needed <= MANY_SAMPLES else f"more than {MANY_SAMPLES:,} samples"


def _rounded(count: float) -> int:
    """Round up to two digits: an estimate is no more precise."""
    unit = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / unit) * unit
