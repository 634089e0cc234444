"""How long a training step takes."""

from pipelines.scoring.metrics.registry import METRICS, Metric, ScoredCell


def step_time(cell: ScoredCell) -> float | None:
    """Seconds a step, of the training alone."""
    return None if cell.training_seconds is None else cell.training_seconds / cell.steps


STEP_TIME = METRICS.register(
    Metric(name="step_time", doc="seconds of one training step", label="seconds a step", read=step_time)
)
