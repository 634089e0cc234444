"""Advice to extend an axis whose best value lies at its end."""

from typing import Any

from sweeps.advice.axis_answers import AxisAnswer, Verdict, profile
from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation, as_settings, expected_loss
from sweeps.advice.wider_axis import wider
from sweeps.spec.space import Axis, Domain

STEPS = "steps"  # more of them are better nearly always: that is the advice `short`


def _edges(situation: Situation) -> list[Advice]:
    """One advice for each open end that is worth it, the one with the largest expected gain first."""
    open_ends = [answer for answer in situation.answers if answer.verdict is Verdict.EDGE and answer.axis != STEPS]
    gains = {answer.axis: expected_gain(situation, answer) for answer in open_ends}
    worth = sorted((a for a in open_ends if situation.worth(gains[a.axis])), key=lambda answer: -gains[answer.axis])
    return [found for answer in worth if (found := _edge(situation, answer))]


def expected_gain(situation: Situation, answer: AxisAnswer) -> float:
    """The improvement that the next value beyond the end is expected to bring.

    The last step towards the end gained g ± e. The next one is taken to gain half of it on average, and to be
    uncertain by g or e, whichever is more; a loss costs nothing, as the present best stays.
    """
    rows = profile(answer.axis, situation.scored)
    at = 0 if answer.end == "lower" else len(rows) - 1
    end, before = (list(rows.values())[i] for i in (at, 1 if at == 0 else at - 1))
    gained, error = (before.cost or 0.0) - (end.cost or 0.0), before.gap_error or 0.0
    return expected_loss(-gained / 2, max(gained, error))


def _edge(situation: Situation, answer: AxisAnswer) -> Advice | None:
    assert answer.end
    found = wider(situation.plan.spec.axes[answer.axis], answer.end)
    if found is None:
        return None
    value, axis = found
    axes = {f"axes.{answer.axis}": axis.model_dump() if isinstance(axis, Domain) else axis}
    points = _more_points(situation)
    tried = situation.changed(as_settings(axes if points else {f"axes.{answer.axis}": [value]}))
    if tried is None:
        return None  # the end of the axis is the end of what there is
    is_trained = answer.axis in situation.plan.spec.training_axes
    new = points or (len(tried.trials) if is_trained else 0)
    trials = {"search.trials": (situation.plan.spec.search.trials or 0) + points} if points else {}
    settings = as_settings(axes | trials)
    which = "smallest" if answer.end == "lower" else "largest"
    cost = f"{new} new training{'s' if new > 1 else ''}" if new else "no new training"
    text = f"the best {answer.axis}, {answer.best}, is the {which} of its axis: try {_shown(axis, value)} ({cost})"
    return Advice("edge", answer.axis, text, situation.sweep_command(settings), settings)


def _more_points(situation: Situation) -> int:
    """How many more points a wider axis wants: a third of those that a search has; a grid has its own number."""
    trials = situation.plan.spec.search.trials
    return max(1, trials // 3) if trials else 0


def _shown(axis: Axis, value: Any) -> str:
    is_range = isinstance(axis, Domain) and axis.kind != "values"
    return f"as far as {value}" if is_range else f"{value} too"


ADVICE.register(AdviceKind("edge", "the best value is the last one of its axis: extend the axis", order=1, of=_edges))
