"""A sweep in a few lines of Markdown: what its run in MLflow is described by, kept up to date as trials end."""

from collections import Counter
from collections.abc import Sequence

from sweeps.advice.advise import in_words
from sweeps.advice.registry import Situation
from sweeps.planning.plan import Plan
from sweeps.report.figures import interval, short, sweep_data
from sweeps.report.page import answer, question
from sweeps.report.svg import figure
from sweeps.results.importance import distinct
from sweeps.results.ranking import Row, noise_floor
from sweeps.storage.events import Event
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import trial_statuses

SHOWN = 5


def summary(plan: Plan, rows: list[Row], events: Sequence[Event], storage: Storage) -> str:
    """Question, answer, the answer to each axis with the first advice, the best cells as a table, how the trials stand.

    storage: where the sweep is, for the commands.
    """
    data = sweep_data(plan, rows, list(events))
    statuses = trial_statuses(events, alive=True)
    counts = Counter(statuses[trial.id] for trial in plan.trials)
    lines = [question(data), "", f"**{' '.join(answer(data))}**", ""]
    if advice := in_words(Situation(plan, rows, events, str(storage.spec(plan.spec.name)))):
        lines += [*(f"- {text}" for text in advice[:-1]), "", f"    {advice[-1].strip()}", ""]
    axes = [axis for axis in plan.spec.axes if axis != "seed" and len(distinct(rows, axis)) > 1]
    if data.scored:
        header = ["", *[short(axis) for axis in axes], data.metric, "± 95 %", "trial"]
        lines += [_line(header), _line(["---"] * len(header))]
        for row in data.scored[:SHOWN]:
            mark = "*" if row.pareto else "=" if row.tied_with_best else str(row.rank)
            values = [str(row.params.get(axis, "")) for axis in axes]
            lines.append(_line([mark, *values, figure(row.value), figure(interval(row)), row.trial]))
    floor = noise_floor(list(events))
    trials = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    lines += ["", f"Trials: {trials}." + (f" Noise floor: {figure(floor)}." if floor is not None else "")]
    lines.append(f"All cells: `mpdit rank {plan.spec.name}`; a page: `mpdit report {plan.spec.name}`.")
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"
