"""Every event is written through the recorder: to the ledger first, then to the tracking view and the screen."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sweeps.storage.events import Event, TrialEnded
from sweeps.storage.ledger import Ledger
from sweeps.storage.trial_status import TrialStatus
from sweeps.tracking.tracking_thread import TrackingThread

Listener = Callable[[Event], None]
P = ParamSpec("P")
T = TypeVar("T")


class Recorder:
    """Writes the events of a sweep in order, and holds why trials, or the whole sweep, are to end early."""

    def __init__(self, ledger: Ledger, tracking: TrackingThread, listener: Listener) -> None:
        self.ledger, self.tracking, self.listener = ledger, tracking, listener
        self.halt: str | None = None  # why no trial may continue
        self.fault: str | None = None  # what ended the sweep from outside
        self.stops: dict[str, str] = {}  # why a trial is to end at its next report
        self.problem: Exception | None = None  # what was raised while Ray Tune ran, which wraps or swallows it

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, for a restore that is never made."""
        return {}

    def guarded(self, callback: Callable[P, T]) -> Callable[P, T]:
        """Return the callback such that what it raises is kept, and no trial continues after it."""

        @wraps(callback)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return callback(*args, **kwargs)
            except Exception as problem:
                self.problem = self.problem or problem
                self.halt = self.halt or str(problem)
                raise

        return call

    def record(self, event: Event) -> None:
        """Append one event and show it; one that the ledger has already is dropped. Raises DiskFull."""
        if self.ledger.append(event):
            recorded = self.ledger.events[-1]
            if isinstance(recorded, TrialEnded) and recorded.outcome is not TrialStatus.PREEMPTED:
                self.stops.pop(recorded.trial, None)  # it may run again, in the next round of staged scoring
            self.tracking.show(recorded)
            self.listener(recorded)
