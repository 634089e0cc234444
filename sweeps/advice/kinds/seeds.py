"""Advice to train the finalists with more seeds, where the best may be a wrong choice."""

from bisect import bisect_left

from sweeps.advice.finalists import confirming_settings, more_seeds, points
from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation
from sweeps.results.ranking import Row

FEWEST = 3  # seeds: the best of many single trainings is a lucky one
MORE = 2  # seeds, where those that there are have not settled it
MOST = 12  # seeds: what they do not tell apart is said to be unsettled
MOST_FINALISTS = 6
LEFT_BEHIND = 0.5  # of the loss and of the risk that are taken: what points that are no finalists may hold


def _seeds(situation: Situation) -> list[Advice]:
    best, spec, rivals = situation.best, situation.plan.spec, points(situation)[1:]
    finalists = _finalists(situation, rivals)
    if best.seeds >= MOST or not finalists or not (best.seeds < FEWEST or situation.is_undecided(rivals)):
        return []
    top = min(1 + len(finalists), MOST_FINALISTS)
    count = min(max(FEWEST, best.seeds + MORE), MOST)
    seeds = more_seeds(spec.seeds, count)
    settings = confirming_settings(situation, top, seeds)
    if situation.changed(settings) is None:
        return []
    text = (
        f"with {_seeds_text(best.seeds)}, {len(finalists)} other training{'s' if len(finalists) > 1 else ''} may be "
        f"better than the best: train the best {top} with {count} ({top * (count - best.seeds)} new trainings)"
    )
    listed = ",".join(map(str, seeds))
    command = f"mpdit confirm {situation.name} --top {top} --seeds {listed}{situation.options}"
    return [Advice("seeds", None, text, command, settings)]


def _finalists(situation: Situation, rivals: list[Row]) -> list[Row]:
    """The rivals, the best first, that must be trained with more seeds for the rest to be left behind.

    Below FEWEST seeds so are all that are tied with the best: the best is expected to fall back.
    """
    open_ones = bisect_left(
        range(len(rivals)), True, key=lambda at: not situation.is_undecided(rivals[at:], LEFT_BEHIND)
    )
    is_early = situation.best.seeds < FEWEST
    return [row for at, row in enumerate(rivals) if at < open_ones or (is_early and row.tied_with_best)]


def _seeds_text(count: int) -> str:
    return f"{count} seeds" if count > 1 else "one seed"


ADVICE.register(
    AdviceKind("seeds", "the best may be a wrong choice: train the finalists with more seeds", order=3, of=_seeds)
)
