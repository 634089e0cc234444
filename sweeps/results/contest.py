"""Which points of a sweep can no longer win, so that nothing needs their weights again."""

from collections import defaultdict
from collections.abc import Sequence

from sweeps.planning.confirmation import is_of_fresh_noise, will_confirm
from sweeps.planning.continuation import shorter_trials
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.staged_scoring import missing_cells, point_of, rounds
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, TrialEnded, TrialRetried, TrialStarted, WeightsDropped
from sweeps.storage.ledger import fold_status
from sweeps.storage.trial_status import TrialStatus


class Contest:
    """The points of a sweep that still have their weights, kept up to date with its ledger.

    An answer costs what these points are, not what the sweep is: a driver asks at each trial's end.

    Args:
        plan: The sweep's plan, which a search may extend.
        events: The events of its ledger, a list that may grow.
    """

    def __init__(self, plan: Plan, events: Sequence[Event]) -> None:
        self.plan, self.events = plan, events
        self._taken = 0  # events
        self._groups: dict[str, list[Trial]] = defaultdict(list)  # the seeds of each point
        self._points: dict[str, str] = {}  # each trial's
        self._places: dict[str, int] = {}  # of the points in the plan: the first of two equal ones ranks before
        self._alive = set[str]()  # points that have begun and have their weights
        self._confirmed = set[str]()  # points that fresh noise has had its say on: their places are taken
        self._own: dict[str, list[Event]] = defaultdict(list)  # what the ranking needs of each trial
        self._statuses: dict[str, TrialStatus] = defaultdict(lambda: TrialStatus.PENDING)

    def losers(self, best: int) -> list[str]:
        """The finished trials that are not among the best points; all seeds of a point are kept or lost together.

        Values are final once a point is scored with all samples, so one that loses now can never win; but the first
        cells are kept until fresh noise has had its say, and where samples are drawn in rounds or
        points are promoted, all are until the last; and so is what a longer training will continue.
        """
        self._take_in()
        in_stages = len(rounds(self.plan.spec)) > 1 or self.plan.spec.scheduler.promotes
        if in_stages and not self._is_over():
            return []
        if not self._alive:
            return []
        ranked = sorted(self._alive | self._confirmed, key=self._places.__getitem__)
        trials = [trial for point in ranked for trial in self._groups[point]]
        known = [event for trial in trials for event in self._own[trial.id]]
        rows = [row for row in rank(Plan(self.plan.spec, trials, self.plan.cells), known) if row.is_scored]
        winning = list(dict.fromkeys(tuple(row.trials) for row in rows))[:best]
        if will_confirm(self.plan):
            winning += [tuple(row.trials) for row in rows[: self.plan.spec.confirm.best] if row.confirmed is None]
        kept = {trial for point in winning for trial in point}
        alive = [self._groups[point] for point in ranked if point in self._alive]
        ended = [group for group in alive if all(self._statuses[trial.id].is_ended for trial in group)]
        kept |= self._to_be_continued()
        return [trial.id for group in ended for trial in group if trial.id not in kept]

    def _to_be_continued(self) -> set[str]:
        """The trials whose state a longer one still needs."""
        longer = [trial for trial in self.plan.trials if not self._statuses[trial.id].is_ended]
        return {shorter.id for trial in longer for shorter in shorter_trials(trial, self.plan)}

    def _is_over(self) -> bool:
        """Whether every trial has ended, and none has cells left to score."""
        if self.plan.open or any(not self._statuses[trial.id].is_ended for trial in self.plan.trials):
            return False
        return not missing_cells(self.plan, list(self.events))

    def _take_in(self) -> None:
        for trial in self.plan.trials[len(self._points) :]:
            self._points[trial.id] = point_of(trial)
            self._groups[self._points[trial.id]].append(trial)
            self._places.setdefault(self._points[trial.id], len(self._places))
        for event in self.events[self._taken :]:
            point = self._points.get(event.trial or "")
            if point is None:
                continue
            fold_status(self._statuses, event)
            if isinstance(event, (TrialStarted, CellScored, TrialEnded, TrialRetried)):
                self._own[str(event.trial)].append(event)
            if isinstance(event, CellScored) and is_of_fresh_noise(self.plan.spec, event):
                self._confirmed.add(point)
            if isinstance(event, WeightsDropped):
                self._alive.discard(point)
            elif isinstance(event, (TrialStarted, TrialEnded)):
                self._alive.add(point)
        self._taken = len(self.events)


def losers(plan: Plan, events: Sequence[Event], best: int) -> list[str]:
    """The finished trials of a sweep that are not among its best points; see `Contest.losers`."""
    return Contest(plan, events).losers(best)
