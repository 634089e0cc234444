"""Advice to extend an axis whose best value lies at its end."""

from dataclasses import dataclass
from typing import Any

from sweeps.advice.axis_answers import AxisAnswer, Verdict, profile
from sweeps.advice.registry import ADVICE, MARGIN, Advice, AdviceKind, Situation, as_settings, expected_loss
from sweeps.advice.wider_axis import wider
from sweeps.planning.plan import Plan, scoring_work
from sweeps.spec.space import STEPS, Axis, Domain
from sweeps.storage.events import TrialEnded
from sweeps.storage.ledger import only

LEAST = 0.01  # of the best value: a gain that is expected to be smaller is not worth a sample


@dataclass(frozen=True)
class Edge:
    """An axis that can be extended.

    Attributes:
        answer: the axis's answer, whose best value is at an end.
        value: the next value beyond it.
        axis: the axis with that value.
        gain: the improvement that is expected, as a share of the best value.
        cost: of the extension, as a share of what a new value of a training axis costs.
    """

    answer: AxisAnswer
    value: Any
    axis: Axis
    gain: float
    cost: float

    @property
    def is_worth_it(self) -> bool:
        """Whether it gains as much for what it costs as a training that gains the margin, and enough to be seen."""
        return self.gain > max(MARGIN * self.cost, LEAST)


def _edges(situation: Situation) -> list[Advice]:
    """One advice for each open end that is worth it, the one that gains most for its cost first.

    More steps are better nearly always: that is the advice `short`.
    """
    open_ends = [answer for answer in situation.answers if answer.verdict is Verdict.EDGE and answer.axis != STEPS]
    found = [edge for answer in open_ends if (edge := _edge(situation, answer)) and edge.is_worth_it]
    found.sort(key=lambda edge: -edge.gain / edge.cost)
    return [advice for edge in found if (advice := _advice(situation, edge))]


def _edge(situation: Situation, answer: AxisAnswer) -> Edge | None:
    """The extension of an axis; None where there is nothing beyond its end, or nothing that could be seen."""
    assert answer.end
    found = wider(situation.plan.spec.axes[answer.axis], answer.end)
    if found is None:
        return None
    value, axis = found
    gain, cost = expected_gain(situation, answer) / abs(situation.best.value or 1.0), 1.0
    if gain <= LEAST:
        return None  # nothing needs to be planned
    if answer.axis in situation.plan.spec.post_hoc_axes:
        alone = situation.changed(_alone(answer.axis, value))
        if alone is None:
            return None
        cost = _scoring_share(situation, alone)
    return Edge(answer, value, axis, gain, cost)


def _alone(axis: str, value: Any) -> tuple[str, ...]:
    """The settings of a sweep that has the new value alone: what a grid is extended by."""
    return as_settings({f"axes.{axis}": [value]})


def _scoring_share(situation: Situation, alone: Plan) -> float:
    """What scoring the cells of a plan takes, beside what its trainings took with all that was scored of them.

    1 where the ledger does not tell the times.
    """
    ends = [e for e in only(situation.events, TrialEnded) if e.training_seconds and e.scoring_seconds]
    scoring = sum(end.scoring_seconds or 0.0 for end in ends)
    total = scoring + sum(end.training_seconds or 0.0 for end in ends)
    now, new = (sum(scoring_work(one.cell, 1) for one in plan.cells) for plan in (situation.plan, alone))
    return new / now * scoring / total if total else 1.0


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


def _settings(situation: Situation, edge: Edge) -> tuple[str, ...]:
    """What the extension changes in the sweep file.

    A search gets more points besides, where a training is needed. One whose points are all listed, as of finalists,
    gets the best of them with the new value.
    """
    spec, axis = situation.plan.spec, edge.answer.axis
    changes: dict[str, Any] = {f"axes.{axis}": edge.axis.model_dump() if isinstance(edge.axis, Domain) else edge.axis}
    if axis in spec.training_axes and spec.search.trials:
        points = _more_points(situation)
        if _is_listed(situation):
            best = {path: situation.best.params[path] for path in spec.space.domains}
            changes["search.first"] = [*spec.search.first, spec.space.active(best | {axis: edge.value})]
        changes["search.trials"] = spec.search.trials + points
    return as_settings(changes)


def _is_listed(situation: Situation) -> bool:
    """Whether every point of a search is given in the sweep file."""
    search = situation.plan.spec.search
    return bool(search.trials) and len(search.first) >= (search.trials or 0)


def _more_points(situation: Situation) -> int:
    """How many more points a wider axis wants: a third of those of a search; a grid has its own number."""
    trials = situation.plan.spec.search.trials
    if _is_listed(situation) or not trials:
        return 1
    return max(1, trials // 3)


def _new_trainings(situation: Situation, edge: Edge) -> int | None:
    """How many trainings the extension adds; None where it cannot be planned.

    A grid adds those of the new value alone, which are fewer to plan than all.
    """
    spec, axis = situation.plan.spec, edge.answer.axis
    is_grid = not spec.search.trials
    changed = situation.changed(_alone(axis, edge.value) if is_grid else _settings(situation, edge))
    if changed is None:
        return None
    if axis not in spec.training_axes:
        return 0
    known = {trial.id for trial in situation.plan.trials}
    return len({trial.id for trial in changed.trials} - known) + changed.open - situation.plan.open


def _advice(situation: Situation, edge: Edge) -> Advice | None:
    """The advice; None where the extension cannot be planned."""
    new = _new_trainings(situation, edge)
    if new is None:
        return None
    answer, settings = edge.answer, _settings(situation, edge)
    which = "smallest" if answer.end == "lower" else "largest"
    cost = f"{new} new training{'s' if new > 1 else ''}" if new else "no new training"
    text = f"the best {answer.axis}, {answer.best}, is the {which} of its axis: try {_shown(edge)} ({cost})"
    return Advice("edge", answer.axis, text, situation.sweep_command(settings), settings)


def _shown(edge: Edge) -> str:
    is_range = isinstance(edge.axis, Domain) and edge.axis.kind != "values"
    return f"as far as {edge.value}" if is_range else f"{edge.value} too"


ADVICE.register(AdviceKind("edge", "the best value is the last one of its axis: extend the axis", order=1, of=_edges))
