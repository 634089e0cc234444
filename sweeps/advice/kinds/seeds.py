"""Advice to train the finalists with more seeds, where trainings are tied and a wrong choice would cost much."""

from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation, expected_loss, gap_error
from sweeps.results.ranking import Row

FEWEST = 3  # seeds: fewer say little about the spread between them
MOST_FINALISTS = 4


def finalists(situation: Situation) -> list[Row]:
    """The best row of the best training and of every training that is tied with it, a row a training, best first."""
    firsts: dict[tuple[str, ...], Row] = {}
    for row in situation.scored:
        firsts.setdefault(tuple(row.trials), row)
    return [row for row in firsts.values() if row is situation.best or row.tied_with_best]


def _seeds(situation: Situation) -> list[Advice]:
    best, found = situation.best, finalists(situation)
    losses = [expected_loss((row.cost or 0.0) - (best.cost or 0.0), gap_error(row, best)) for row in found[1:]]
    if not situation.worth(max(losses, default=0.0)):
        return []
    count = min(len(found), MOST_FINALISTS)
    seeds = max(FEWEST, best.seeds + 2)
    text = (
        f"{len(found) - 1} other trainings cannot be told from the best with {_seeds_text(best.seeds)}: "
        f"train the best {count} with {seeds} ({count * (seeds - best.seeds)} new trainings)"
    )
    listed = ",".join(map(str, range(seeds)))
    command = f"mpdit confirm {situation.name} --top {count} --seeds {listed}{situation.options}"
    return [Advice("seeds", None, text, command)]


def _seeds_text(count: int) -> str:
    return f"{count} seeds" if count > 1 else "one seed"


ADVICE.register(AdviceKind("seeds", "trainings are tied: train the finalists with more seeds", order=3, of=_seeds))
