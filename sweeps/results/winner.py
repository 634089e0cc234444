"""Export the winner of a sweep as a bundle: its weights, or its recipe for another size."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpdit.errors import input_error
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.results.ranking import Row, winner_said
from sweeps.storage.events import CellScored, Event, SweepStarted, encode
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only

if TYPE_CHECKING:
    from pipelines.transfer import Transfer


@dataclass(frozen=True)
class RankedSweep:
    """A sweep's plan, its events, and its ranked rows, best first."""

    plan: Plan
    events: list[Event]
    rows: list[Row]


def transfer_winner(plan: Plan, row: Row, size: str | None, patch: int | None) -> "Transfer":
    """Transfer a row's recipe, at its EMA width, to another size or patch. Raises InputError where it cannot be."""
    from pipelines.transfer import transfer

    recipe = next(trial.recipe for trial in plan.trials if trial.id == row.trial)
    width = planned_cell(plan, row).cell.sigma_rel
    return transfer(recipe.model_copy(update={"ema": recipe.ema.model_copy(update={"sigma_rel": width})}), size, patch)


def export_winner(storage: Storage, ranked: RankedSweep, output: Path, transferred: "Transfer | None" = None) -> Path:
    """Write the bundle of the first row's best seed.

    Args:
        storage: Where the trial is.
        ranked: The sweep; its first row wins.
        output: The bundle's folder.
        transferred: The winner's recipe for another size, to be written in place of its weights.

    Raises:
        InputError: The weights are no longer kept.
    """
    from pipelines.export import export
    from pipelines.training.training_folder import is_trained
    from pipelines.transfer import export_transfer

    plan, row = ranked.plan, ranked.rows[0]
    storage.bring(row.trial)
    run = storage.trial(row.trial)
    if transferred is None and not is_trained(run):
        raise input_error(f"the weights of trial {row.trial} are not in {storage.name}", given=run)
    planned = planned_cell(plan, row)
    results = {cell.trial: cell for cell in only(ranked.events, CellScored) if cell.key == planned.cell.key}
    scored = encode(results[row.trial])
    kept = ("params", "cell", "metric", "value", "stderr", "magnitude_drift", "noise_floor", "provenance")
    result = {name: scored[name] for name in kept}
    if row.confirmed is not None:
        result |= {"confirmed": row.confirmed, "confirmed_interval": row.confirmed_interval}
    seeds = {trial.id: trial.recipe.seed for trial in plan.trials}
    if row.kind.has_folds:  # what the model card calls a mean is of the distance
        result |= {"seeds": [seeds[trial] for trial in row.trials], "mean": row.value, "error": row.stderr}
    sweep = only(ranked.events, SweepStarted)[0].sweep
    source: dict[str, Any] = {"sweep": plan.spec.name, "sweep_id": sweep, "trial": row.trial, "params": row.params}
    source["winner_changed"] = winner_said(ranked.rows)
    source["tied"] = sum(other.tied_with_best for other in ranked.rows)
    if transferred is None:
        return export(run, result, output, source)
    return export_transfer(transferred, result, output, source)


def planned_cell(plan: Plan, row: Row) -> PlannedCell:
    """The cell of the plan that a row is of."""
    return next(cell for cell in plan.cells if cell.params.items() <= row.params.items())
