"""The best weights of a sweep, apart from its best recipe: a recipe is as good as the mean of its seeds."""

from collections.abc import Mapping
from dataclasses import replace

from sweeps.planning.cell_metrics import metrics_of
from sweeps.planning.confirmation import confirming_cell
from sweeps.planning.plan import Plan
from sweeps.results.ranking import Row
from sweeps.results.winner import planned_cell
from sweeps.storage.events import CellScored, Event
from sweeps.storage.ledger import by_trial, only


def best_weights(plan: Plan, events: list[Event], rows: list[Row]) -> Row:
    """The one training with the best value, as the row that it would have alone.

    Args:
        plan: The sweep's plan.
        events: The events of its ledger.
        rows: Its ranked rows, best first; the first one has a value.

    Returns:
        Of the rows that were scored again on fresh noise, the training that is best there; where none was, or the rows
        are ranked by what has no noise of its own, the training of the first row that is best.
    """
    known = by_trial(events)
    found = [one for row in rows if row.confirmed is not None for one in _trainings(plan, known, row)]
    return min(found, key=lambda row: row.kind.cost(row.confirmed or 0.0), default=rows[0])


def _trainings(plan: Plan, known: Mapping[str, list[Event]], row: Row) -> list[Row]:
    """The trainings of a row, each as a row of its own. known: the events of each trial."""
    planned = planned_cell(plan, row)
    trials = {trial.id: trial for trial in plan.trials}
    found = []
    for name in row.trials:
        cells = {cell.key: cell for cell in only(known[name], CellScored)}
        first, again = cells[planned.cell.key], cells[confirming_cell(plan, planned).key]
        metric = row.kind.name
        value, confirmed = (metrics_of(trials[name], cell, known[name], [metric])[metric] for cell in (first, again))
        error = first.stderr if row.kind.has_folds else None
        alone = replace(row, trial=name, trials=[name], seeds=1, value=value, stderr=error, confirmed=confirmed)
        found.append(replace(alone, freedom=None, interval=None, confirmed_interval=None, gap_error=None))
    return found
