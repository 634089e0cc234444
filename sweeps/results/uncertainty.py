"""How sure a ranking is: the error of a value and of a difference, and what would separate two rows that are tied."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from mpdit.scoring.frechet import FOLDS, jackknife_error, t_critical

SEED_TO_SAMPLING = 3.2  # another training seed moves a value so much more than another draw of noise; arXiv 2606.20536
MANY_SAMPLES, MANY_SEEDS = 1_000_000, 100  # what would be needed beyond these is no difference worth finding


@dataclass(frozen=True)
class Measured:
    """The measurements of a row: its value for each seed, and the means over seeds of its values without each fold."""

    values: dict[int, float]
    left_out: list[float] | None
    sampling_error: float | None  # used where there are no folds
    samples: int

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return mean(self.values.values())


@dataclass(frozen=True)
class Difference:
    """How much worse a row is than the best, and the two parts of the standard error of that difference.

    sampling: the error from the draw of noise. training: the error from the training seed; with a single seed it is
    unknown, and taken as SEED_TO_SAMPLING times the sampling errors where two trainings are compared.
    """

    value: float
    sampling: float
    training: float
    seeds: int

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        return math.hypot(self.sampling, self.training)

    @property
    def t_critical(self) -> float:
        """Student's t of the difference, with the degrees of freedom of Welch and Satterthwaite."""
        parts = [(self.sampling**2, FOLDS - 1), (self.training**2, self.seeds - 1 or math.inf)]
        weighed = sum(variance**2 / degrees for variance, degrees in parts if variance)
        return t_critical(sum(variance for variance, _ in parts) ** 2 / weighed if weighed else math.inf)

    @property
    def is_tie(self) -> bool:
        """Whether the difference is within its 95 % error."""
        return abs(self.value) <= self.t_critical * self.error


def _sampling(measured: Measured) -> float | None:
    return jackknife_error(measured.left_out) if measured.left_out else measured.sampling_error


def _training(values: Sequence[float]) -> float | None:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def value_error(measured: Measured) -> float | None:
    """The standard error of a row's value: over samples, and over training seeds where there are several."""
    parts = [part for part in (_sampling(measured), _training(list(measured.values.values()))) if part is not None]
    return math.hypot(*parts) if parts else None


def difference(row: Measured, best: Measured, same_training: bool) -> Difference | None:
    """The row's value minus the best's, paired: on the same folds of the same noise and the same training seeds.

    Args:
        row: The row.
        best: The best row.
        same_training: Whether the two are cells of one training.

    Returns:
        The difference; None where no error is known.
    """
    alone = [_sampling(row), _sampling(best)]
    if None in alone and len(row.values) == 1:
        return None
    unpaired = math.hypot(*(part or 0.0 for part in alone))
    if row.left_out and best.left_out and row.samples == best.samples:
        sampling = jackknife_error([a - b for a, b in zip(row.left_out, best.left_out, strict=True)])
    else:
        sampling = unpaired
    shared = [seed for seed in row.values if seed in best.values]
    training = _training([row.values[seed] - best.values[seed] for seed in shared])
    if training is None:
        training = 0.0 if same_training else SEED_TO_SAMPLING * unpaired
    return Difference(row.value - best.value, sampling, training, max(1, len(shared)))


def what_would_tell_apart(found: Difference, samples: int) -> str:
    """How many samples or seeds would make a tied difference, if it stays the same, larger than its error."""
    times = (found.t_critical * found.error / found.value) ** 2 if found.value else math.inf
    if found.seeds == 1 and found.training:
        return "more seeds"
    if found.training > found.sampling:
        seeds = found.seeds * times
        return f"about {math.ceil(seeds)} seeds" if seeds <= MANY_SEEDS else f"more than {MANY_SEEDS} seeds"
    needed = samples * times
    return f"about {_rounded(needed):,} samples" if needed <= MANY_SAMPLES else f"more than {MANY_SAMPLES:,} samples"


def _rounded(count: float) -> int:
    """Round up to two digits: an estimate is no more precise."""
    unit = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / unit) * unit
