"""What a cell is measured by: its distance and drift, its model's size, its training's time a step."""

from collections.abc import Collection, Iterable

from sweeps.planning.plan import Trial
from sweeps.storage.ledger import Event


def metrics_of(trial: Trial, cell: Event, lines: Iterable[Event], asked: Collection[str]) -> dict[str, float | None]:
    """The metrics of a scored cell that are asked for; `lines` are its trial's events.

    step_time: seconds, of the training alone.
    """
    found: dict[str, float | None] = {"frechet": cell["value"], "magnitude_drift": cell["magnitude_drift"]}
    if "parameters" in asked:
        found["parameters"] = float(trial.parameters)
    if "step_time" in asked:
        known = [line["training_seconds"] for line in lines if line.get("training_seconds") is not None]
        found["step_time"] = known[-1] / trial.recipe.steps if known else None
    return {name: found[name] for name in asked}
