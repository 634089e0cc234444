"""Several sweeps of one metric in one table, and where the sweeps differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpdit.errors import input_error
from sweeps.results.ranking import Row
from sweeps.results.winner import RankedSweep

COMPARED = ("recipe", "evaluation", "axes")


def one_table(sweeps: Sequence[RankedSweep]) -> list[tuple[str, Row]]:
    """The rows of all sweeps with their sweep's name, best first; those without a value are last.

    A mark of one sweep's own ranking (tied, on the front) says nothing of the others and is taken away.

    Raises:
        InputError: The sweeps are not ranked by one metric.
    """
    metrics = {sweep.plan.spec.name: {row.metric for row in sweep.rows if row.metric} for sweep in sweeps}
    if len(set().union(*metrics.values())) > 1:
        raise input_error(
            "the sweeps are not ranked by one metric",
            **{name: ", ".join(sorted(found)) or "nothing yet" for name, found in metrics.items()},
            hint="rank each alone, or --by a metric that all have",
        )
    pairs = [(sweep.plan.spec.name, row) for sweep in sweeps for row in sweep.rows]
    pairs.sort(key=lambda pair: (not pair[1].is_scored, pair[1].cost is None, pair[1].cost or 0.0))
    plain: dict[str, Any] = {"tied_with_best": False, "to_tell_apart": None, "pareto": None}
    return [(name, replace(row, rank=at, **plain)) for at, (name, row) in enumerate(pairs, start=1)]


def differences(sweeps: Sequence[RankedSweep]) -> list[str]:
    """Where the recipes, evaluations and axes differ, a line each: `recipe.steps: 300 in short, 1200 in long`."""
    names = [sweep.plan.spec.name for sweep in sweeps]
    flat = [_flat({part: sweep.plan.spec.model_dump()[part] for part in COMPARED}) for sweep in sweeps]
    paths = dict.fromkeys(path for fields in flat for path in fields)
    found = [(path, [fields.get(path) for fields in flat]) for path in paths]
    return [
        f"{path}: " + ", ".join(f"{_written(value)} in {name}" for name, value in zip(names, values, strict=True))
        for path, values in found
        if any(value != values[0] for value in values)
    ]


def measured_on_other_data(sweeps: Sequence[RankedSweep]) -> bool:
    """Whether the values are distances to different data, which no comparison means anything for."""
    seen = [(spec.recipe.data, spec.evaluation.reference) for spec in (sweep.plan.spec for sweep in sweeps)]
    return any(other != seen[0] for other in seen)


def _written(value: Any) -> str:
    return "none" if value is None else str(value)


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their paths. An axis is one value: its path has dots of its own."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        inner = isinstance(value, Mapping) and prefix != "axes."
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat
