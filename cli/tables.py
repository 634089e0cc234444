"""Aligned text for people: rankings, plans, trials."""

from collections.abc import Sequence
from typing import Any

from sweeps.plan import Estimate, Plan, Trial
from sweeps.ranking import Row
from sweeps.saving import Saving
from sweeps.screening import planned_samples, rounds


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry, two spaces apart; numbers to the right."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    numeric = [all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return text == "–" or text.lstrip("-").replace(".", "", 1).replace(",", "").split(" ")[0].isdigit()


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 10 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short(axis: str) -> str:
    """An axis's last name, for a column: `model.modulation` → `modulation`."""
    return axis.rsplit(".", 1)[-1]


def ranking_table(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """The ranking; `=` marks what cannot be told from the best, `*` the Pareto front, `!` a broken constraint."""
    shown = [axis for axis in axes if axis != "seed"]
    metric = next((row.metric for row in rows if row.metric), "value")
    others = list(rows[0].values or {})[1:] if rows else []
    header = ["", "rank", "trial", *[short(axis) for axis in shown], metric, "±", *others, "drift", "status", "needs"]
    body = [
        [
            "!" if row.feasible is False else "*" if row.pareto else "=" if row.tied_with_best else "",
            str(row.rank),
            row.trial,
            *[str(row.params.get(axis, "–")) for axis in shown],
            number(row.value),
            number(row.stderr),
            *[number((row.values or {}).get(name), 0 if name == "parameters" else 4) for name in others],
            number(row.magnitude_drift, 2),
            "" if row.status == "completed" else row.status,
            (row.to_tell_apart or "").removeprefix("about "),
        ]
        for row in rows
    ]
    kept = [at for at in range(len(header)) if header[at] not in ("status", "needs") or any(r[at] for r in body)]
    return aligned([header[at] for at in kept], [[line[at] for at in kept] for line in body])


def plan_table(plan: Plan, train: Sequence[Trial], remaining: Sequence[Trial], cost: Estimate) -> str:
    """The trials of a plan (those to train, those that need any work) and what they will cost."""
    state = {trial.id: "to score" for trial in remaining} | {trial.id: "to train" for trial in train}
    axes = plan.spec.training_axes
    header = ["trial", *[short(axis) for axis in axes], "parameters", "steps", "state"]
    body = [
        [
            trial.id,
            *[str(trial.params[axis]) for axis in axes],
            f"{trial.parameters:,}",
            f"{trial.recipe.steps:,}",
            state.get(trial.id, "done"),
        ]
        for trial in plan.trials
    ]
    time = "not known yet: nothing like it has been timed in this storage"
    if cost.hours is not None and cost.gpu_hours is not None:
        time = f"about {duration(cost.hours * 3600)}, {cost.gpu_hours:.2f} GPU-hours"
    if plan.open:
        text = f"{plan.open} more as {plan.spec.search.algorithm} suggests them from the results"
        body.append(["…", *[""] * len(axes), "", "", text])
    summary = [
        f"{len(plan.trials) + plan.open} trials ({', '.join(axes) or 'one recipe'}): "
        f"{len(train) + plan.open} to train, {len(remaining) - len(train)} only to score",
        f"× {len(plan.cells)} cells each ({', '.join(plan.spec.post_hoc_axes) or 'one'}; post-hoc, no training)"
        f" = {(len(plan.trials) + plan.open) * len(plan.cells)} cells",
        f"time: {time}",
        f"disk: about {cost.disk_gb:.2f} GB",
    ]
    counts = rounds(plan.spec)
    if len(counts) > 1:
        share = planned_samples(plan) / (len(plan.trials) * len(plan.cells) * counts[-1])
        text = " → ".join(f"{count:,}" for count in counts)
        summary.insert(2, f"scored in rounds of {text} samples: {share:.0%} of scoring every cell in full")
    budget = {name: value for name, value in plan.spec.budget.model_dump().items() if value is not None}
    if budget:
        summary.append("budget: " + ", ".join(f"{name} {value:g}" for name, value in budget.items()))
    if plan.spec.scheduler.kind != "none":
        summary.append(f"at most: {plan.spec.scheduler.kind} will stop some trials early")
    depths = sorted({trial.recipe.model.shape[0] for trial in plan.trials})
    if len(depths) > 1 and any(trial.recipe.optimizer.parametrization == "mup" for trial in plan.trials):
        summary.append(f"mup covers the width alone, not the depth: {', '.join(map(str, depths))} blocks here")
    return aligned(header, body) + "\n\n" + "\n".join(summary)


def saving_table(saved: Saving) -> str:
    """The cost of a sweep, of one training at another size, and of the sweep at that size."""
    rows = [
        ("this sweep", saved.sweep),
        (f"one training of {saved.target}", saved.training),
        (f"this sweep at {saved.target}", saved.sweep_at_target),
    ]
    body = [
        [what, str(cost.trainings), f"{cost.petaflop:.2g}", "–" if cost.hours is None else duration(cost.hours * 3600)]
        for what, cost in rows
    ]
    lines = [aligned(["", "trainings", "PFLOP", "one by one"], body), ""]
    if saved.saved > 0:
        lines.append(f"saved by tuning here and training once at {saved.target}: {saved.saved:.1%} of the arithmetic")
    else:
        lines.append(f"nothing is saved: this sweep and one training cost more than the sweep at {saved.target}")
    return "\n".join(lines + saved.warnings)


def trials_table(rows: Sequence[dict[str, Any]], axes: Sequence[str]) -> str:
    """The trials of a sweep as they stand."""
    header = ["trial", *[short(axis) for axis in axes], "status", "step", "loss", "cells", "best", "reason"]
    body = [
        [
            row["trial"],
            *[str(row["params"][axis]) for axis in axes],
            row["status"],
            f"{row['step']}/{row['steps']}",
            number(row["loss"]),
            f"{row['scored']}/{row['cells']}",
            number(row["best"]),
            row["reason"] or "",
        ]
        for row in rows
    ]
    if not any(line[-1] for line in body):
        header, body = header[:-1], [line[:-1] for line in body]
    return aligned(header, body)
