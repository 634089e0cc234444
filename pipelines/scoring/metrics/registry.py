"""Metrics: whatever is known of a cell, by one name in objectives, constraints, rankings and reports.

Each metric is a module of pipelines/scoring/metrics, or of a package in it. A metric is measured from the features of a
cell's samples when the cell is scored, or read from what the ledger says of the cell and of its trial.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from mpdit.scoring.extractor import Extractor

Mode = Literal["min", "max"]
TOGETHER = {"precision_recall": ("precision", "recall")}  # names of evaluation.metrics that stand for several


class Scores(Protocol):
    """What is known of every score, also of one at a rung."""

    @property
    def value(self) -> float | None:
        """The Fréchet distance; None where the samples are not finite."""

    @property
    def magnitude_drift(self) -> float | None:
        """The largest |ln M| over blocks."""


class ScoredCell(Scores, Protocol):
    """What is known of a scored cell and of its trial."""

    @property
    def more(self) -> Mapping[str, float | None]:
        """The metrics that were measured from its features."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What it was measured with, and `nfe`."""

    @property
    def sampling_seconds(self) -> float | None:
        """The time that drawing one sample took; None where nothing was drawn, or a former version did not tell."""

    @property
    def parameters(self) -> int:
        """The trainable parameters of its model."""

    @property
    def steps(self) -> int:
        """The steps of its training."""

    @property
    def training_seconds(self) -> float | None:
        """The time that its training took."""


@dataclass(frozen=True)
class Features:
    """What a metric is measured from: the features of a cell's samples and of real images.

    fake, real: (count, dimensions), on the CPU. extractor: the network that they are of. shared: what one metric has
    computed and another needs too. real_labels: (count,), of the real images. held_out: features of the images that
    the training did not see, where some are held out. fake_labels: (count,), the classes that samples were asked for.
    """

    fake: "Tensor"
    real: "Tensor"
    extractor: "Extractor"
    shared: dict[str, Any] = field(default_factory=dict)
    real_labels: "Tensor | None" = None
    held_out: "Tensor | None" = None
    fake_labels: "Tensor | None" = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that is known of a cell.

    Args:
        label: How texts and the columns of a report call it.
        unit: What is written behind a value in a report; values are divided by `unit_size` there.
        is_count: Whether it is a whole number.
        larger_is_better: Whether the best cell has the largest value.
        measure: Measures it from features, by its own name; side values may stand beside it under other names, and
            details, which only the ledger keeps, under NAME/DETAIL.
        read: Reads it from what is known of a cell; for a metric with `measure` not needed.
        at_rung: Reads it from a score of an unfinished training; None: no scheduler can stop a training by it.
        has_folds: Whether its value without each fold of the samples is known, of which its error is made.
        needs_classes: Whether the features must be those of a classifier.
        needs_labels: Whether the data must have classes.
        needs_features: The extractor that its features must be of; any where empty.
        needs_holdout: Whether images must be held out of training; it is then measured without being named.
    """

    name: str
    doc: str
    label: str
    unit: str = ""
    unit_size: float = 1.0
    is_count: bool = False
    larger_is_better: bool = False
    measure: Callable[[Features], Mapping[str, float]] | None = None
    read: Callable[[ScoredCell], float | None] | None = None
    at_rung: Callable[[Scores], float | None] | None = None
    has_folds: bool = False
    needs_classes: bool = False
    needs_holdout: bool = False
    needs_labels: bool = False
    needs_features: str = ""

    def __post_init__(self) -> None:
        if (self.measure is None) == (self.read is None):
            raise ValueError(f"metric {self.name!r} needs one of measure and read")

    @property
    def mode(self) -> Mode:
        """How an objective of this metric is written: whether the least or the largest value is best."""
        return "max" if self.larger_is_better else "min"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """The same in Optuna's words."""
        return "maximize" if self.larger_is_better else "minimize"

    def of(self, cell: ScoredCell) -> float | None:
        """Its value for a scored cell; None where it is not known or not finite."""
        value = self.read(cell) if self.read else cell.more.get(self.name)
        return value if value is not None and math.isfinite(value) else None

    def cost(self, value: float) -> float:
        """The value, or its negative where larger is better: the smaller the better in any case."""
        return -value if self.larger_is_better else value


METRICS: Registry[Metric] = Registry("metric", "pipelines.scoring.metrics")


def measured_metrics(names: Iterable[str], has_holdout: bool = False) -> list[Metric]:
    """The metrics of `evaluation.metrics` that are measured from features, in alphabetical order.

    has_holdout: Whether images are held out of training, which adds the metrics that compare with them.
    """
    found = {one for name in names for one in TOGETHER.get(name, (name,))}
    found |= {kind.name for kind in METRICS if kind.needs_holdout} if has_holdout else set()
    return [METRICS[name] for name in sorted(found)]


def without_details(more: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return what was measured on a cell without the details of its metrics, of which there may be thousands."""
    return {name: value for name, value in more.items() if "/" not in name}


def measurable() -> list[str]:
    """What `evaluation.metrics` may name."""
    return sorted([*(kind.name for kind in METRICS if kind.measure), *TOGETHER])
