"""Advice to finish what the sweep has begun: nothing else can be said before."""

from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation
from sweeps.storage.ledger import trial_statuses


def _unfinished(situation: Situation) -> list[Advice]:
    statuses = trial_statuses(situation.events)
    trials = [statuses[trial.id] for trial in situation.plan.trials]
    if faults := sum(status.is_fault for status in trials):
        text = f"{faults} of {len(trials)} trials failed; log.txt in each one's folder says why"
        command = f"mpdit retry {situation.name} --failed{situation.options}"
        return [Advice("unfinished", None, text, command)]
    waiting = sum(status.is_open for status in trials) + situation.plan.open
    if not waiting:
        return []
    text = (
        f"{waiting} of {len(trials) + situation.plan.open} trials are not finished: what follows may change with them"
    )
    return [Advice("unfinished", None, text, situation.sweep_command(()))]


ADVICE.register(AdviceKind("unfinished", "trials wait, were interrupted, or failed: run them", order=0, of=_unfinished))
