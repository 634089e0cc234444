"""From the best row of a ranking to a bundle."""

from pathlib import Path

from mpdit.errors import refusal
from pipelines.export import export
from pipelines.training import is_trained
from sweeps.ledger import Event
from sweeps.plan import Plan
from sweeps.ranking import Row
from sweeps.storage import Storage


def export_winner(storage: Storage, plan: Plan, events: list[Event], rows: list[Row], output: Path) -> Path:
    """Write the bundle of the first row's best seed. Raises BadInput when its weights are no longer there."""
    row = rows[0]
    run = storage.trial(row.trial)
    if not is_trained(run):
        raise refusal(f"the weights of trial {row.trial} are not in {storage.root}", given=run)
    planned = next(cell for cell in plan.cells if cell.params.items() <= row.params.items())
    results = {line["trial"]: line for line in events if line["event"] == "cell" and line["cell"] == planned.cell.key}
    kept = ("params", "cell", "metric", "value", "stderr", "magnitude_drift", "noise_floor", "provenance")
    result = {name: results[row.trial][name] for name in kept}
    seeds = {trial.id: trial.recipe.seed for trial in plan.trials}
    result |= {"seeds": [seeds[trial] for trial in row.trials], "mean": row.value, "error": row.stderr}
    started = next(line for line in events if line["event"] == "sweep_started")
    source = {"sweep": plan.spec.name, "sweep_id": started["sweep"], "trial": row.trial, "params": row.params}
    source["tied"] = sum(other.tied_with_best for other in rows)
    return export(run, result, output, source)
