"""Measure how much each axis matters: PED-ANOVA (arXiv 2304.10255) on an Optuna study of the scored cells."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpdit.errors import input_error
from sweeps.planning.plan import Plan
from sweeps.results.ranking import Row

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

BEST_QUANTILE = 0.25  # what counts as good: small grids have too few cells for the customary tenth
FEWEST = 4  # cells below which nothing is said


def importances(plan: Plan, rows: Sequence[Row]) -> dict[str, float]:
    """The importance of each axis with several values for being among the best quarter of the cells.

    Largest first; they sum to 1. Empty where too few cells are scored, or where all are equally good.
    """
    from optuna.importance import PedAnovaImportanceEvaluator

    known = [row for row in rows if row.is_scored]
    costs = sorted(row.cost or 0.0 for row in known)
    if len(known) < FEWEST or costs[int(BEST_QUANTILE * len(known))] == costs[-1]:
        return {}  # too few, or no quarter of them is better than the rest
    study = study_of(plan, known)
    if len(study.trials[0].params) == 0:
        return {}
    found = PedAnovaImportanceEvaluator(target_quantile=BEST_QUANTILE).evaluate(study)
    total = sum(found.values())
    if not total or not math.isfinite(total):
        return {}
    shares = {axis: value / total for axis, value in found.items()}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def write_study(plan: Plan, rows: Sequence[Row], path: Path) -> None:
    """Write the scored cells as an Optuna study to a journal file for optuna-dashboard; an older file is replaced.

    Raises InputError where no cell is scored.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    known = [row for row in rows if row.is_scored]
    if not known:
        raise input_error(f"no cell of {plan.spec.name} has been scored yet", hint=f"mpdit status {plan.spec.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    study_of(plan, known, JournalStorage(JournalFileBackend(str(path))))


def study_of(plan: Plan, rows: Sequence[Row], storage: "BaseStorage | None" = None) -> "Study":
    """An Optuna study with one finished trial for each row, of every axis that has several values.

    storage: where Optuna keeps the study; None: in memory.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    axes = {axis: values for axis in rows[0].params if len(values := distinct(rows, axis)) > 1}
    distributions = {axis: _distribution(values) for axis, values in axes.items()}
    study = optuna.create_study(study_name=plan.spec.name, direction=rows[0].kind.direction, storage=storage)
    for row in rows:
        params = {axis: row.params[axis] if axis in numeric(axes) else str(row.params[axis]) for axis in axes}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=row.value))
    return study


def numeric(axes: dict[str, list[Any]]) -> set[str]:
    """The axes whose every value is a number."""
    return {axis for axis, values in axes.items() if all(type(value) in (int, float) for value in values)}


def distinct(rows: Sequence[Row], axis: str) -> list[Any]:
    """The values of an axis among the rows: numbers in order, anything else in the rows' order."""
    values = list(dict.fromkeys(row.params.get(axis) for row in rows if axis in row.params))
    return sorted(values) if all(type(value) in (int, float) for value in values) else values


def _distribution(values: list[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if numeric({"": values}):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low >= 4)
    return CategoricalDistribution([str(value) for value in values])
