"""What a cell is measured by: its distance and drift, its model's size, its training's time a step."""

from collections.abc import Collection, Iterable

from sweeps.planning.plan import Trial
from sweeps.storage.events import CellScored, Event, TrialEnded
from sweeps.storage.ledger import only


def metrics_of(
    trial: Trial, cell: CellScored, events: Iterable[Event], asked: Collection[str]
) -> dict[str, float | None]:
    """The metrics of a scored cell that are asked for; `events` are its trial's.

    step_time: seconds, of the training alone.
    """
    found: dict[str, float | None] = {"frechet": cell.value, "magnitude_drift": cell.magnitude_drift}
    if "parameters" in asked:
        found["parameters"] = float(trial.parameters)
    if "step_time" in asked:
        known = [end.training_seconds for end in only(events, TrialEnded) if end.training_seconds is not None]
        found["step_time"] = known[-1] / trial.recipe.steps if known else None
    return {name: found[name] for name in asked}
