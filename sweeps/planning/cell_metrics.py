"""The metrics of a scored cell, read from its event and from those of its trial."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.plan import Trial
from sweeps.storage.events import CellScored, Event, TrialEnded
from sweeps.storage.ledger import only


@dataclass(frozen=True)
class CellRecord:
    """A scored cell and its trial, as metrics read them (`pipelines.scoring.metrics.registry.ScoredCell`)."""

    trial: Trial
    event: CellScored
    training_seconds: float | None

    @property
    def value(self) -> float | None:
        """The Fréchet distance."""
        return self.event.value

    @property
    def magnitude_drift(self) -> float | None:
        """The largest |ln M| over blocks."""
        return self.event.magnitude_drift

    @property
    def more(self) -> Mapping[str, float | None]:
        """The metrics that were measured from its features."""
        return self.event.more

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What it was measured with."""
        return self.event.provenance

    @property
    def sampling_seconds(self) -> float | None:
        """The time that drawing one sample took."""
        return self.event.sampling_seconds

    @property
    def parameters(self) -> int:
        """The trainable parameters of its model."""
        return self.trial.parameters

    @property
    def steps(self) -> int:
        """The steps of its training."""
        return self.trial.recipe.steps


def metrics_of(
    trial: Trial, cell: CellScored, events: Iterable[Event], asked: Iterable[str]
) -> dict[str, float | None]:
    """The metrics of a scored cell that are asked for; `events` are its trial's."""
    times = [end.training_seconds for end in only(events, TrialEnded) if end.training_seconds is not None]
    record = CellRecord(trial, cell, times[-1] if times else None)
    return {name: METRICS[name].of(record) for name in asked}
