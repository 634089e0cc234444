"""Aligned text for people: rankings, plans, trials."""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.confirmation import confirming_samples
from sweeps.planning.continuation import lengths_said
from sweeps.planning.plan import Estimate, Plan, Trial, axis_factors, largest_saving
from sweeps.planning.staged_scoring import planned_samples, rounds
from sweeps.results.ranking import Row
from sweeps.spec.paths import short_name, value_text
from sweeps.storage.trial_status import TrialStatus

if TYPE_CHECKING:
    from sweeps.planning.transfer_cost import TransferCost


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], gap: int = 2) -> str:
    """A table with columns as wide as their widest entry, `gap` spaces apart; numbers are aligned to the right."""
    table = [list(header), *[list(row) for row in rows]]
    numeric = [all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, _widths(table), numeric, strict=True)
        ]
        lines.append((" " * gap).join(cells).rstrip())
    return "\n".join(lines)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in table) for column in range(len(table[0]))]


def terminal_width() -> int:
    """The width of the terminal (or COLUMNS) in characters; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def fitted(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, spare: Sequence[str] = ()) -> str:
    """A table of at most `width` characters: columns closer, then without the `spare` ones, then the longest cut."""
    kept, left_out, gap = list(range(len(header))), [], 2
    while _span(header, rows, kept, gap) > width:
        gone = next((at for name in spare for at in kept if header[at] == name), None)
        if gap == 2:
            gap = 1
        elif gone is not None:
            kept.remove(gone)
            left_out.append(header[gone])
        else:
            break
    lines = [[line[at] for at in kept] for line in rows]
    excess = _span(header, rows, kept, gap) - width
    if excess > 0:
        sizes = _widths([[header[at] for at in kept], *lines])
        longest = max(range(len(kept)), key=sizes.__getitem__)
        longest_width = max(8, sizes[longest] - excess)
        lines = [
            [_cut(text, longest_width) if at == longest else text for at, text in enumerate(line)] for line in lines
        ]
    text = aligned([header[at] for at in kept], lines, gap)
    return text + (f"\n(no room at {width} columns: {', '.join(left_out)})" if left_out else "")


def _span(header: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], gap: int) -> int:
    sizes = _widths([header, *rows])
    return sum(sizes[at] for at in kept) + gap * (len(kept) - 1)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _is_number(text: str) -> bool:
    return text == "–" or text.lstrip("-").replace(".", "", 1).replace(",", "").split(" ")[0].isdigit()


def number(value: float | None, digits: int = 3) -> str:
    """A number as text, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as text: 42 s, 3 min 10 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short(axes: Sequence[str]) -> list[str]:
    """The last names of axes, for columns: `model.modulation` → `modulation`; a whole path where two end alike."""
    last = [short_name(axis) for axis in axes]
    return [axis if last.count(name) > 1 else name for axis, name in zip(axes, last, strict=True)]


def ranking_table(rows: Sequence[Row], axes: Sequence[str], sweeps: Sequence[str] = ()) -> str:
    """The ranking; `=` marks what cannot be told from the best, `*` the Pareto front, `!` a broken constraint,
    `~` other code. sweeps: the name of each row's sweep, where they are of several.
    """
    shown = [axis for axis in axes if axis != "seed"]
    metric = next((row.metric for row in rows if row.metric), "value")
    others = [*list(rows[0].values or {})[1:], *(rows[0].metrics or {})] if rows else []
    header = [
        "",
        "rank",
        "trial",
        *short(shown),
        metric,
        "±",
        "again",
        *others,
        "drift",
        "status",
        "needs",
    ]
    body = [
        [
            ("!" if row.feasible is False else "*" if row.pareto else "=" if row.tied_with_best else "")
            + ("~" if row.other_code else ""),
            "–" if row.value is None else str(row.rank),
            row.trial,
            *[value_text(row.params.get(axis, "–")) for axis in shown],
            number(row.value),
            number(row.stderr),
            "" if row.confirmed is None else number(row.confirmed),
            *[_metric(row, name) for name in others],
            number(row.magnitude_drift, 2),
            "" if row.status == TrialStatus.COMPLETED else row.status,
            (row.to_tell_apart or "").removeprefix("about "),
        ]
        for row in rows
    ]
    if sweeps:
        header.insert(2, "sweep")
        body = [[*line[:2], name, *line[2:]] for line, name in zip(body, sweeps, strict=True)]
    kept = [
        at for at in range(len(header)) if header[at] not in ("again", "status", "needs") or any(r[at] for r in body)
    ]
    table = [[line[at] for at in kept] for line in body]
    spare = ("drift", *others, "trial", "rank", "±")  # `needs` says what to do, and stays
    return fitted([header[at] for at in kept], table, terminal_width(), spare)


def _metric(row: Row, name: str) -> str:
    """A further metric of a row; counts as whole numbers."""
    value = {**(row.metrics or {}), **(row.values or {})}.get(name)
    return number(value, 0 if METRICS[name].is_count else 4)


def _flat(rows: Sequence[Row], sweeps: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows with a column for each axis and each metric; all have all columns. sweeps: as in `ranking_table`."""
    nested = ("params", "metrics", "values")
    flat = [
        {**row.params, **{k: v for k, v in row.as_dict().items() if k not in nested}}
        | {**(row.values or {}), **(row.metrics or {}), "trials": " ".join(row.trials)}
        for row in rows
    ]
    flat = [{"sweep": name, **row} for name, row in zip(sweeps, flat, strict=True)] if sweeps else flat
    names = dict.fromkeys(name for row in flat for name in row)
    return [{name: row.get(name) for name in names} for row in flat]


def ranking_csv(rows: Sequence[Row], sweeps: Sequence[str] = ()) -> str:
    """The rows as comma-separated values under a header. sweeps: as in `ranking_table`."""
    text, flat = io.StringIO(), _flat(rows, sweeps)
    writer = csv.DictWriter(text, fieldnames=list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def write_parquet(path: Path, rows: Sequence[Row], sweeps: Sequence[str] = ()) -> None:
    """Write the rows as a Parquet file, whole or not at all; a column of words and numbers is one of words."""
    import pyarrow
    from pyarrow import parquet

    columns, flat = {}, _flat(rows, sweeps)
    for name in flat[0] if flat else ():
        values = [row[name] for row in flat]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            columns[name] = pyarrow.array([None if value is None else str(value) for value in values])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    parquet.write_table(pyarrow.table(columns), partial)
    partial.replace(path)


def plan_table(plan: Plan, train: Sequence[Trial], remaining: Sequence[Trial], cost: Estimate) -> str:
    """The trials of a plan and what they will cost. train: those to train. remaining: those that need any work."""
    axes = plan.spec.training_axes
    header = ["trial", *short(axes), *_plan_columns(plan)]
    body = plan_lines(plan, train, remaining, "{:,}")
    time = "not known yet: nothing like it has been timed in this storage"
    if cost.hours is not None and cost.gpu_hours is not None:
        time = f"about {duration(cost.hours * 3600)}, {cost.gpu_hours:.2f} GPU-hours"
    if plan.open:
        scheduler, search = plan.spec.scheduler, plan.spec.search
        who = f"{scheduler.kind} promotes" if scheduler.promotes else f"{search.algorithm} suggests"
        text = f"{plan.open} more as {who} them from the results"
        body.append(["…", *[""] * (len(header) - 2), text])
    summary = [
        f"{len(plan.trials) + plan.open} trials ({', '.join(axes) or 'one recipe'}): "
        f"{len(train) + plan.open} to train, {len(remaining) - len(train)} only to score",
        f"× {len(plan.cells)} cells each ({', '.join(plan.spec.post_hoc_axes) or 'one'}; post-hoc, no training)"
        f" = {(len(plan.trials) + plan.open) * len(plan.cells)} cells",
        f"time: {time}",
        *_where_time_goes(plan, cost, len(train) == len(plan.trials)),
        f"disk: about {cost.disk_gb:.2f} GB",
    ]
    counts = rounds(plan.spec)
    if len(counts) > 1:
        fraction = planned_samples(plan) / (len(plan.trials) * len(plan.cells) * counts[-1])
        text = " → ".join(f"{count:,}" for count in counts)
        summary.insert(2, f"scored in rounds of {text} samples: {fraction:.0%} of scoring every cell in full")
    if again := confirming_samples(plan):
        summary.insert(2, f"then the best {plan.spec.confirm.best} again on fresh noise (confirm): {again:,} samples")
    if more := plan.spec.confirm.seeds:
        summary.append(f"and then the best {plan.spec.confirm.best} points with {more} more seeds each (confirm.seeds)")
    budget = {name: value for name, value in plan.spec.budget.model_dump().items() if value is not None}
    if budget:
        summary.append("budget: " + ", ".join(f"{name} {value:g}" for name, value in budget.items()))
    if plan.spec.scheduler.stops:
        summary.append(f"at most: {plan.spec.scheduler.kind} will stop some trials early")
    if lengths := lengths_said(plan):
        summary.append(lengths)
    depths = sorted({trial.recipe.model.shape[0] for trial in plan.trials})
    if len(depths) > 1 and any(trial.recipe.optimizer.parametrization == "mup" for trial in plan.trials):
        summary.append(f"mup covers the width alone, not the depth: {', '.join(map(str, depths))} blocks here")
    return fitted(header, body, terminal_width(), ("steps", "parameters")) + "\n\n" + "\n".join(summary)


def _where_time_goes(plan: Plan, cost: Estimate, is_new: bool) -> list[str]:
    """Training and scoring apart; of a sweep that has not begun, what each axis costs and what would save most."""
    share = cost.scoring_share
    if share is None:
        return []
    lines = [f"  training {1 - share:.0%}, scoring {share:.0%}"]
    if is_new:
        factors = axis_factors(plan.spec, share)
        setting, saved = largest_saving(plan.spec, share)
        text = ", ".join(f"{axis} × {factor:.2g}" for axis, factor in factors.items())
        lines += [f"  each axis: {text}"] if text else []
        lines += [f"  saves most: --set {setting}: −{saved:.0%}"]
    return lines


def _plan_columns(plan: Plan) -> list[str]:
    """What a plan says of a trial besides its axes: the steps only where they are none of them."""
    return [name for name in ("parameters", "steps", "state") if name not in plan.spec.training_axes]


def plan_lines(plan: Plan, train: Sequence[Trial], remaining: Sequence[Trial], count: str = "{}") -> list[list[str]]:
    """A row for each trial: id, value on every training axis, and what `_plan_columns` names. count: how numbers are
    written.
    """
    state = {trial.id: "to score" for trial in remaining} | {trial.id: "to train" for trial in train}
    return [
        [
            trial.id,
            *[str(trial.params[axis]) for axis in plan.spec.training_axes],
            count.format(trial.parameters),
            *([] if "steps" in plan.spec.training_axes else [count.format(trial.recipe.steps)]),
            state.get(trial.id, "done"),
        ]
        for trial in plan.trials
    ]


def plan_csv(plan: Plan, train: Sequence[Trial], remaining: Sequence[Trial]) -> str:
    """The trials of a plan as comma-separated values, under a header; axes by their paths."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *plan.spec.training_axes, *_plan_columns(plan)])
    writer.writerows(plan_lines(plan, train, remaining))
    return text.getvalue()


def transfer_table(saved: "TransferCost") -> str:
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


def trials_table(rows: Sequence[dict[str, Any]], axes: Sequence[str], most: int | None = None) -> str:
    """The states of a sweep's trials, at most `most` of them and running ones first; reasons are below the table."""
    shown = rows if most is None or len(rows) <= most else sorted(rows, key=_standing)[:most]
    header = ["trial", *short(axes), "status", "step", "img/s", "loss", "cells", "best", "drift"]
    body = [
        [
            row["trial"],
            *[str(row["params"][axis]) for axis in axes],
            row["status"],
            f"{row['step']}/{row['steps']}",
            number(row["images_per_second"], 0),
            number(row["loss"]),
            f"{row['scored']}/{row['cells']}",
            number(row["best"]),
            number(row["magnitude_drift"], 2),
            "–" if row["seconds_left"] is None else duration(row["seconds_left"]),
        ]
        for row in shown
    ]
    text = fitted([*header, "left"], body, terminal_width(), ("cells", "drift", "img/s", "loss"))
    if len(shown) < len(rows):
        rest = Counter(row["status"] for row in rows if row not in shown)
        text += f"\n… and {len(rows) - len(shown)} more: " + ", ".join(f"{n} {status}" for status, n in rest.items())
    reasons = [f"{row['trial']}: {row['reason']}" for row in shown if row["reason"]]
    return "\n".join([text, *reasons])


def _standing(row: dict[str, Any]) -> int:
    """Order: running trials first, then the worst, pending ones last."""
    status = TrialStatus(row["status"])
    if status is TrialStatus.RUNNING:
        return -1
    return len(TrialStatus) if status is TrialStatus.PENDING else list(TrialStatus).index(status)
