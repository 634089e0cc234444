"""Which trial runs next and which one stops, decided from the events so far; for the driver and the simulator."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from sweeps.planning.budget import exhausted
from sweeps.planning.known_work import unfinished
from sweeps.planning.plan import Plan, Trial, trials_of
from sweeps.search.observations import observations
from sweeps.search.optuna_search import suggest
from sweeps.search.rung_decisions import decide
from sweeps.storage.events import Event, RungScored, Suggested, TrialEnded, TrialRetried
from sweeps.storage.ledger import only, trial_statuses
from sweeps.storage.trial_status import TrialStatus

Record = Callable[[Event], None]


class TrialScheduler:
    """Hands out the trials to run, then those that the search suggests, and stops trials at their rungs.

    Args:
        plan: Its trials; those that the search suggests are added to it.
        events: The events of the ledger, a list that grows as events are recorded.
        todo: The trials of the plan that need work.
        record: Adds an event to the ledger.
        found: Gives the events that other sweeps have recorded of suggested trials, so that a trial that needs no work
            is not handed out. None: the search suggests nothing.
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
        self.is_done = False  # whether `next` has returned None

    def next(self) -> Trial | None:
        """The trial to start now; None when there is no other, or the budget is reached."""
        while exhausted(self.plan.spec, self.events) is None and (self.waiting or self._suggested()):
            while self.waiting:
                trial = self.waiting.popleft()
                reason = self._stopped_sibling(trial)
                if reason is None:
                    return trial
                self.record(TrialEnded(trial.id, TrialStatus.STOPPED, reason))
        self.is_done = True
        return None

    def on_trial_result(self, event: Event) -> str | None:
        """Why the trial of this event is to stop now, or None. Must be called before the event is recorded."""
        if not isinstance(event, RungScored):
            return None
        rung = (event.trial, event.step)
        if any((other.trial, other.step) == rung for other in only(self.events, RungScored)):
            return None  # a rung that is reported again was decided the first time
        trial = next(trial for trial in self.plan.trials if trial.id == event.trial)
        return decide(self.plan.spec, self.events, event) or self._stopped_sibling(trial)

    def _suggested(self) -> bool:
        """Queue the trials of the next point that the search suggests; False when it has no other."""
        if self.found is None or not self.plan.open:
            return False
        point = suggest(self.plan.spec, observations(self.plan, self.events))
        if point is None:
            return False
        trials = trials_of(self.plan.spec, point)
        self.record(Suggested(point, [trial.id for trial in trials]))
        self.plan.trials.extend(trials)
        for event in self.found(trials):
            self.record(event)
        self.waiting.extend(unfinished(Plan(self.plan.spec, trials, self.plan.cells), list(self.events)))
        return True

    def _stopped_sibling(self, trial: Trial) -> str | None:
        """Why a trial is stopped because another seed of its point was, or None."""
        if not self.plan.spec.scheduler.stops or len(self.plan.spec.seeds) == 1:
            return None
        if any(retried.trial == trial.id for retried in only(self.events, TrialRetried)):
            return None  # a person asked for this very trial
        point = {axis: value for axis, value in trial.params.items() if axis != "seed"}
        same = [t.id for t in self.plan.trials if point.items() <= t.params.items() and t.id != trial.id]
        statuses = trial_statuses(self.events)
        other = next((sibling for sibling in same if statuses[sibling] is TrialStatus.STOPPED), None)
        return f"another seed of the same point, {other}, was stopped" if other else None
