"""Advice to train the finalists with more seeds, where trainings are tied and a wrong choice would cost much."""

from sweeps.advice.finalists import confirming_settings, more_seeds, points
from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation

FEWEST = 3  # seeds: fewer say little about the spread between them
MOST_FINALISTS = 4


def _seeds(situation: Situation) -> list[Advice]:
    best, spec = situation.best, situation.plan.spec
    tied = [row for row in points(situation)[1:] if row.tied_with_best]
    if not situation.worth(situation.loss(tied)):
        return []
    top = min(1 + len(tied), MOST_FINALISTS)
    count = max(FEWEST, best.seeds + 2)
    seeds = more_seeds(spec.seeds, count)
    settings = confirming_settings(situation, top, seeds)
    if situation.changed(settings) is None:
        return []
    text = (
        f"{len(tied)} other trainings cannot be told from the best with {_seeds_text(best.seeds)}: "
        f"train the best {top} with {count} ({top * (count - best.seeds)} new trainings)"
    )
    listed = ",".join(map(str, seeds))
    command = f"mpdit confirm {situation.name} --top {top} --seeds {listed}{situation.options}"
    return [Advice("seeds", None, text, command, settings)]


def _seeds_text(count: int) -> str:
    return f"{count} seeds" if count > 1 else "one seed"


ADVICE.register(AdviceKind("seeds", "trainings are tied: train the finalists with more seeds", order=3, of=_seeds))
