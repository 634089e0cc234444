"""Every event is written through the recorder: to the ledger first, then to the tracking view and the screen."""

from collections.abc import Callable
from typing import Any

from sweeps.storage.events import Event
from sweeps.storage.ledger import Ledger
from sweeps.tracking.tracking_thread import TrackingThread

Listener = Callable[[Event], None]


class Recorder:
    """Writes the events of a sweep in order, and holds why trials, or the whole sweep, are to end early."""

    def __init__(self, ledger: Ledger, tracking: TrackingThread, listener: Listener) -> None:
        self.ledger, self.tracking, self.listener = ledger, tracking, listener
        self.halt: str | None = None  # why no trial may continue
        self.fault: str | None = None  # what ended the sweep from outside
        self.stops: dict[str, str] = {}  # why a trial is to end at its next report

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, for a restore that is never made."""
        return {}

    def record(self, event: Event) -> None:
        """Append one event and show it; one that the ledger has already is dropped. Raises DiskFull."""
        if self.ledger.append(event):
            recorded = self.ledger.events[-1]
            self.tracking.show(recorded)
            self.listener(recorded)
