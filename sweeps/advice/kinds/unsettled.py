"""Advice to stop where a reasonable number of trainings does not settle which point is the best."""

from sweeps.advice.finalists import is_of_finalists, points
from sweeps.advice.kinds.seeds import FEWEST, MOST
from sweeps.advice.registry import ADVICE, WORSE, Advice, AdviceKind, Situation

WIDE = 0.2  # spread of seeds: with more, finalists of single trainings often lack the best (benchmarks/advice.py)


def _unsettled(situation: Situation) -> list[Advice]:
    best, rivals = situation.best, points(situation)[1:]
    spread, is_undecided = best.seed_spread or 0.0, situation.is_undecided(rivals)
    if is_undecided and best.seeds >= MOST:
        risk = min(1.0, situation.risk(rivals))
        why = f"with {best.seeds} seeds each, another point is better by more than {WORSE:.0%} with up to {risk:.0%}"
    elif not is_undecided and best.seeds >= FEWEST and is_of_finalists(situation) and spread > WIDE:
        why = f"a seed moves a value by {spread:.0%}, so that the best point may not be among the finalists"
    else:
        return []
    text = f"cannot be settled with a reasonable number of trainings: {why}"
    return [Advice("unsettled", None, text, f"mpdit best {situation.name} --export{situation.options}")]


ADVICE.register(
    AdviceKind(
        "unsettled", "so many seeds as are reasonable do not tell which point is the best: stop", order=5, of=_unsettled
    )
)
