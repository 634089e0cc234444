"""All advice for a sweep, the most useful first."""

from sweeps.advice.registry import ADVICE, MARGIN, Advice, Situation


def advise(situation: Situation) -> list[Advice]:
    """The advice for a sweep with at least one scored cell: what each kind says, in the kinds' order.

    Where no kind has anything to say, the one advice is `settled`.
    """
    if not situation.scored:
        return ADVICE["unfinished"].of(situation)
    found = [advice for kind in sorted(ADVICE, key=lambda kind: kind.order) for advice in kind.of(situation)]
    return found or [settled(situation)]


def settled(situation: Situation) -> Advice:
    """The advice to stop."""
    answers = "; ".join(answer.text for answer in situation.answers) or "there is one cell"
    text = f"settled: {answers}. Whatever else is tied with the best is within {MARGIN:.0%} of it in expectation"
    return Advice("settled", None, text, f"mpdit best {situation.name} --export{situation.options}")
