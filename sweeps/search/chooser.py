"""What runs next and what stops, told by the events so far. The runner and the simulator ask alike."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from sweeps.planning.budget import exhausted
from sweeps.planning.known_work import unfinished
from sweeps.planning.plan import Plan, Trial, trials_of
from sweeps.search.optuna_search import suggest, tried
from sweeps.search.schedulers import verdict
from sweeps.storage.ledger import Event, event, trial_statuses

Record = Callable[[Event], None]
UNTIMED = {"training_seconds": None, "scoring_seconds": None}


def same_rung(line: Event, other: Event) -> bool:
    """Whether the other event is a first report of the same rung, which was judged then."""
    return other["event"] == "rung" and (other["trial"], other["step"]) == (line["trial"], line["step"])


class Chooser:
    """Hands out the trials that are to do, then those that the search suggests; judges a trial at its rungs.

    plan: grows by what is suggested. events: the ledger's, a list that grows as lines are recorded. record: takes a
    line into them. found: what is known already of some trials (another sweep's events); those that need no work are
    not handed out. None: nothing is to be suggested.
    """

    def __init__(
        self,
        plan: Plan,
        events: Sequence[Event],
        todo: Iterable[Trial],
        record: Record,
        found: Callable[[list[Trial]], list[Event]] | None,
    ) -> None:
        self.plan, self.events, self.record, self.found = plan, events, record, found
        self.waiting = deque(todo)
        self.is_done = False  # whether it has said that there is no other trial

    def next(self) -> Trial | None:
        """The trial to start now; None when there is no other, or the budget is reached."""
        while exhausted(self.plan.spec, self.events) is None and (self.waiting or self._suggested()):
            while self.waiting:
                trial = self.waiting.popleft()
                reason = self._stopped_sibling(trial)
                if reason is None:
                    return trial
                self.record(event("trial_ended", trial.id, outcome="stopped", reason=reason, **UNTIMED))
        self.is_done = True
        return None

    def judge(self, line: Event) -> str | None:
        """Why the trial of this event is to stop now, or None. To be asked before the event is recorded."""
        if line["event"] != "rung" or any(same_rung(line, other) for other in self.events):
            return None
        trial = next(trial for trial in self.plan.trials if trial.id == line["trial"])
        return verdict(self.plan.spec, self.events, line) or self._stopped_sibling(trial)

    def _suggested(self) -> bool:
        """Let the search suggest a point, and queue its trials; whether there was one."""
        if self.found is None or not self.plan.open:
            return False
        point = suggest(self.plan.spec, tried(self.plan, self.events))
        if point is None:
            return False
        trials = trials_of(self.plan.spec, point)
        self.record(event("suggested", params=point, trials=[trial.id for trial in trials]))
        self.plan.trials.extend(trials)
        for line in self.found(trials):
            self.record(line)
        self.waiting.extend(unfinished(Plan(self.plan.spec, trials, self.plan.cells), list(self.events)))
        return True

    def _stopped_sibling(self, trial: Trial) -> str | None:
        """A point is stopped as a whole: why, when another of its seeds was."""
        if self.plan.spec.scheduler.kind == "none" or len(self.plan.spec.seeds) == 1:
            return None
        if any(line["event"] == "trial_retried" and line["trial"] == trial.id for line in self.events):
            return None  # it was asked for by itself
        point = {axis: value for axis, value in trial.params.items() if axis != "seed"}
        same = [t.id for t in self.plan.trials if point.items() <= t.params.items() and t.id != trial.id]
        statuses = trial_statuses(self.events)
        other = next((sibling for sibling in same if statuses[sibling] == "stopped"), None)
        return f"another seed of the same point, {other}, was stopped" if other else None
