"""All advice for a sweep, the most useful first."""

from sweeps.advice.registry import ADVICE, MARGIN, RISK, WORSE, Advice, Situation


def advise(situation: Situation) -> list[Advice]:
    """The advice for a sweep: what each kind says, in the kinds' order; where none says anything, `settled`.

    Before the first cell is scored, and with several objectives, it is only what is unfinished.
    """
    if not situation.scored or len(situation.plan.spec.objective) > 1:
        return ADVICE["unfinished"].of(situation)
    found = [advice for kind in sorted(ADVICE, key=lambda kind: kind.order) for advice in kind.of(situation)]
    return found or [settled(situation)]


def settled(situation: Situation) -> Advice:
    """The advice to stop."""
    answers = "; ".join(answer.text for answer in situation.answers) or "there is one cell"
    text = (
        f"{answers}. Another choice is expected to gain less than {MARGIN:.0%}, "
        f"and more than {WORSE:.0%} with a probability below {RISK:.0%}"
    )
    return Advice("settled", None, text, f"mpdit best {situation.name} --export{situation.options}")


def in_words(situation: Situation) -> list[str]:
    """The answer to each axis and the first advice with its command, a line each; nothing before a cell is scored."""
    if not situation.scored or len(situation.plan.spec.objective) > 1:
        return []
    first = advise(situation)[0]
    return [*(answer.text for answer in situation.answers), f"{first.kind}: {first.text}", f"  {first.command}"]
