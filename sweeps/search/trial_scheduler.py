"""Which trial runs next and which one stops, decided from the events so far; for the driver and the simulator."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sweeps.planning.budget import Spending, exhausted
from sweeps.planning.continuation import shorter_trials
from sweeps.planning.known_work import unfinished
from sweeps.planning.plan import Plan, Trial, trials_of
from sweeps.search.observations import observations
from sweeps.search.optuna_search import suggest
from sweeps.search.promotion import promoted
from sweeps.search.rung_decisions import decide
from sweeps.spec.space import Point
from sweeps.storage.events import Event, RungScored, Suggested, TrialEnded, TrialRetried, TrialStarted
from sweeps.storage.ledger import fold_status
from sweeps.storage.trial_status import TrialStatus

Record = Callable[[Event], None]


@dataclass(frozen=True)
class Elsewhere:
    """What is known of other processes of the storage.

    finished: the events that other sweeps have recorded of trials that they have finished. is_locked: whether another
    process of this machine runs a trial now. is_leased: the same for another machine; it is only asked of trials that a
    worker could not get, for a dead driver's lease may still seem to be held. prior_points: what a search begins with,
    where it asks for it; it is called once.
    """

    finished: Callable[[list[Trial]], list[Event]]
    is_locked: Callable[[str], bool]
    is_leased: Callable[[str], bool] = lambda trial: False
    prior_points: Callable[[], list[Point]] = list


NOTHING_ELSEWHERE = Elsewhere(lambda trials: [], lambda trial: False)


@dataclass(frozen=True)
class Candidates:
    """The trials that a scheduler hands out: some of the plan, and those that the search suggests, if it is to."""

    todo: Iterable[Trial]
    searching: bool


class TrialScheduler:
    """Hands out the trials to run, then those that the search suggests, and stops trials at their rungs.

    Args:
        plan: Its trials; those that the search suggests are added to it.
        events: The events of the ledger, a list that grows as events are recorded.
        candidates: What to hand out.
        record: Adds an event to the ledger.
        elsewhere: A trial that another process runs is not handed out until it is free, and one that another sweep has
            finished only for what is missing.
    """

    def __init__(
        self, plan: Plan, events: Sequence[Event], candidates: Candidates, record: Record, elsewhere: Elsewhere
    ) -> None:
        self.plan, self.events, self.record, self.elsewhere = plan, events, record, elsewhere
        self.searching = candidates.searching
        self.waiting = deque(candidates.todo)
        self.taken_over = set[str]()  # trials of the plan whose events came from another sweep meanwhile
        self.spending = Spending(events)
        self.is_done = False  # whether `next` has returned None
        self.is_waiting = False  # whether that was because the trials that are left run elsewhere
        self._taken = 0  # events
        self._out: dict[str, Trial] = {}  # handed out, and not yet ended
        self._statuses: dict[str, TrialStatus] = defaultdict(lambda: TrialStatus.PENDING)
        self._own: dict[str, list[Event]] = defaultdict(list)  # each trial's events
        self._rungs: list[Event] = []  # starts and scores at rungs
        self._verdicts: dict[str, str] = {}  # why a trial was to stop at a rung, until it has
        self._retried = set[str]()
        self._returned = set[str]()  # trials that a worker could not get, because another process ran them

    def next(self) -> Trial | None:
        """The trial to start now; None when there is no other, the budget is reached, or all others run elsewhere."""
        self.is_waiting = False
        while exhausted(self.plan.spec, self.spending) is None:
            trial = self._first_free()
            if trial is not None:
                return trial
            if not self._suggested():
                self.is_waiting = bool(self._out and (self.waiting or self._may_promote))
                break
        self.is_done = not self.is_waiting
        return None

    @property
    def has_no_other(self) -> bool:
        """Whether `next` has handed out all trials, and none has come back."""
        return self.is_done and not self.waiting

    def on_trial_result(self, event: Event) -> str | None:
        """Why the trial of this event is to stop now, or None. Must be called before the event is recorded."""
        if not isinstance(event, RungScored):
            return None
        self._take_in()
        rung = (event.trial, event.step)
        if any((other.trial, other.step) == rung for other in self._own[event.trial] if isinstance(other, RungScored)):
            return None  # a rung that is reported again was decided the first time
        trial = next(trial for trial in self.plan.trials if trial.id == event.trial)
        return decide(self.plan.spec, self._rungs, event) or self._stopped_sibling(trial)

    def is_held(self, trial: str) -> bool:
        """Whether another process runs a trial now."""
        return self.elsewhere.is_locked(trial) or (trial in self._returned and self.elsewhere.is_leased(trial))

    def must_wait(self, trial: Trial) -> bool:
        """Whether a trial cannot begin now: another process runs it, or a shorter one that it continues is to come."""
        shorter = {other.id for other in shorter_trials(trial, self.plan)}
        to_come = bool(shorter) and (shorter & self._out.keys() or any(other.id in shorter for other in self.waiting))
        return bool(to_come) or self.is_held(trial.id)

    def _take_in(self) -> None:
        """Update what is known with the events since the last time."""
        for at in range(self._taken, len(self.events)):
            event = self.events[at]
            fold_status(self._statuses, event)
            if event.trial is not None:
                self._own[event.trial].append(event)
            match event:
                case TrialStarted():
                    self._rungs.append(event)
                case RungScored():
                    self._rungs.append(event)
                    if event.stop:
                        self._verdicts[event.trial] = event.stop
                case TrialRetried():
                    self._retried.add(event.trial)
                    self._verdicts.pop(event.trial, None)
                case TrialEnded():
                    self._take_end(event)
        self._taken = len(self.events)

    def _take_end(self, end: TrialEnded) -> None:
        if not end.outcome.is_open:
            self._verdicts.pop(end.trial, None)
        if end.outcome is not TrialStatus.PREEMPTED:  # which Ray starts again by itself
            trial = self._out.pop(end.trial, None)
            if trial is not None and end.held:
                self.waiting.append(trial)
                self._returned.add(trial.id)

    def _first_free(self) -> Trial | None:
        """Take the first waiting trial that is to run and that no other process runs; None where there is none."""
        self._take_in()
        for _ in range(len(self.waiting)):
            trial = self.waiting.popleft()
            if self.must_wait(trial):
                self.waiting.append(trial)
                continue
            reason = self._verdicts.get(trial.id) or self._stopped_sibling(trial)
            if reason is not None:
                self.record(TrialEnded(trial.id, TrialStatus.STOPPED, reason))
                self._take_in()
            elif self._is_left(trial):
                self._out[trial.id] = trial
                return trial
        return None

    def _is_left(self, trial: Trial) -> bool:
        """Whether a trial needs a worker once what other sweeps have found of it is taken over."""
        found = self.elsewhere.finished([trial])
        if not found:
            return True
        for event in found:
            self.record(event)
        self._take_in()
        self.taken_over.add(trial.id)
        return bool(unfinished(Plan(self.plan.spec, [trial], self.plan.cells), self._own[trial.id]))

    @cached_property
    def _prior(self) -> list[Point]:
        """The points that the search begins with."""
        return self.elsewhere.prior_points() if self.plan.spec.search.prior == "storage" else []

    @property
    def _may_promote(self) -> bool:
        """Whether the end of a trial may let points be trained on."""
        return self.searching and self.plan.spec.scheduler.promotes

    def _suggested(self) -> bool:
        """Queue the trials of the next point that the search suggests, or of those that are promoted; False: none."""
        if self._may_promote:
            points = [] if self.waiting or self._out else promoted(self.plan, self.events)
        elif self.searching and self.plan.open:
            point = suggest(self.plan.spec, observations(self.plan, self.events), self._prior)
            points = [] if point is None else [point]
        else:
            points = []
        for point in points:
            self._queue(point)
        return bool(points)

    def _queue(self, point: Point) -> None:
        """Record a new point, and queue what is unfinished of its trials."""
        trials = trials_of(self.plan.spec, point)
        self.record(Suggested(point, [trial.id for trial in trials]))
        self.plan.trials.extend(trials)
        self._take_in()
        own = [event for trial in trials for event in self._own[trial.id]]
        self.waiting.extend(unfinished(Plan(self.plan.spec, trials, self.plan.cells), own))

    def _stopped_sibling(self, trial: Trial) -> str | None:
        """Why a trial is stopped because another seed of its point was, or None."""
        if not self.plan.spec.scheduler.stops or len(self.plan.spec.seeds) == 1:
            return None
        if trial.id in self._retried:
            return None  # a person asked for this very trial
        point = {axis: value for axis, value in trial.params.items() if axis != "seed"}
        same = [t.id for t in self.plan.trials if point.items() <= t.params.items() and t.id != trial.id]
        other = next((sibling for sibling in same if self._statuses[sibling] is TrialStatus.STOPPED), None)
        return f"another seed of the same point, {other}, was stopped" if other else None
