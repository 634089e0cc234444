"""Advice to train longer: the ranking is one of the speed of learning."""

from dataclasses import dataclass
from typing import Any

from sweeps.advice.axis_answers import Verdict
from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation, as_settings
from sweeps.advice.wider_axis import next_value
from sweeps.results.ranking import Row, noise_floor
from sweeps.spec.space import STEPS
from sweeps.storage.events import CellScored, RungScored
from sweeps.storage.ledger import only

FAR = 10.0  # times the noise floor: a finished model is within a few of it
FALLING = 0.1  # of the value at the end: by how much it still fell since the last rung
LONGER = 2  # times the steps
MUCH_LONGER = 4  # … where the best is far above the noise floor


@dataclass(frozen=True)
class Reason:
    """Why a sweep is too short, and how many times as long it should be."""

    text: str
    times: int


def _short(situation: Situation) -> list[Advice]:
    reason = _at_the_longest(situation) or _far_from_the_floor(situation) or _still_falling(situation)
    if reason is None:
        return []
    spec = situation.plan.spec
    changes: dict[str, Any]
    if STEPS in spec.axes and isinstance(spec.axes[STEPS], list):
        values = sorted(spec.axes[STEPS])
        longer = (next_value(values, "upper") if len(values) > 1 else None) or values[-1] * LONGER
        changes = {f"axes.{STEPS}": [*values, longer]}
    else:
        changes = {
            "name": f"{situation.name}-{reason.times}x",
            "recipe.steps": spec.recipe.steps * reason.times,
        }
    settings = as_settings(changes)
    if situation.changed(settings) is None:
        return []
    text = f"{reason.text}: this ranks the speed of learning; train longer"
    return [Advice("short", STEPS if STEPS in spec.axes else None, text, situation.sweep_command(settings), settings)]


def _at_the_longest(situation: Situation) -> Reason | None:
    """Where `steps` is an axis: whether the longest trainings are the best beyond the errors."""
    answer = next((a for a in situation.answers if a.axis == STEPS), None)
    if answer is None or answer.verdict is not Verdict.EDGE or answer.end != "upper" or len(answer.values) > 1:
        return None
    return Reason(f"{answer.best} steps, the most of the axis, are better than fewer", LONGER)


def _far_from_the_floor(situation: Situation) -> Reason | None:
    floor, best = noise_floor(list(situation.events)), situation.best
    if not floor or not best.kind.has_folds or best.value is None or best.value < FAR * floor:
        return None
    return Reason(f"the best is {best.value / floor:.0f} times the noise floor", MUCH_LONGER)


def _still_falling(situation: Situation) -> Reason | None:
    """Whether the best trial's distance fell between its last rung and its end by more than a tenth."""
    best, cell = situation.best, _cell_of(situation, situation.best)
    rungs = [rung for rung in only(situation.events, RungScored) if rung.trial == best.trial]
    if cell is None or not rungs or not best.kind.has_folds:
        return None
    last = max(rungs, key=lambda rung: rung.step)
    same = [w for w in last.widths if w.sigma_rel == cell.params["ema.sigma_rel"] and w.value is not None]
    slope = _floor_slope(cell)
    if not same or slope is None or cell.value is None:
        return None
    rung, end = (same[0].value or 0.0) - slope / last.samples, cell.value - slope / cell.samples
    if rung - end <= FALLING * end:
        return None
    text = f"the best fell by {(rung - end) / rung:.0%} in the last {1 - last.rung_fraction:.0%} of its training"
    return Reason(text, LONGER)


def _cell_of(situation: Situation, row: Row) -> CellScored | None:
    cells = [cell for cell in only(situation.events, CellScored) if cell.trial == row.trial]
    wanted = {path: value for path, value in row.params.items() if path in situation.plan.spec.post_hoc_axes}
    return next((cell for cell in reversed(cells) if wanted.items() <= cell.params.items()), None)


def _floor_slope(cell: CellScored) -> float | None:
    """How fast the distance grows with 1/samples, from the noise floor a·(1/n + 1/m): see mpdit/scoring/frechet.py."""
    reference = cell.provenance.get("reference_count")
    if cell.noise_floor is None or not reference:
        return None
    return float(cell.noise_floor / (1 / cell.samples + 1 / reference))


ADVICE.register(
    AdviceKind(
        "short",
        "the best is far above the noise floor, or still falls: train longer",
        order=2,
        of=_short,
    )
)
