"""Write the tracking view of a sweep: as events come, on a thread of the driver; or later, by `mpdit sync`."""

import logging
import threading
from collections.abc import Callable, Iterable

from mpdit.errors import input_error
from mpdit.run_folder import PICTURES, RECIPE
from sweeps.planning.plan import Plan
from sweeps.storage.events import CellScored, Event, SamplesDrawn, SweepStarted, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only
from sweeps.tracking.tracking_view import Writer, view_of

TRY_AGAIN = 5.0  # seconds between two attempts at a tracking store that is away
PATIENCE = 60  # seconds without a sign of life after which a tracking store is given up

log = logging.getLogger(__name__)


class TrackingThread(threading.Thread):
    """Shows events in the tracking store as they come; the sweep never waits for the store.

    A store that fails is tried again every few seconds, from the last event that it is known to show. The next start or
    `mpdit sync` shows what it has not seen when the sweep is over.
    """

    def __init__(self, storage: Storage, plan: Plan, sweep: str, past: Iterable[Event]) -> None:
        super().__init__(name="tracking", daemon=True)
        self.view = view_of(plan)
        self.uri = self.view.address(storage, plan.spec.tracking.uri)
        self.storage, self.plan, self.sweep = storage, plan, sweep
        self.problem: Exception | None = None
        self.shown = 0  # events that this thread has shown
        self._events = list(past)
        self._news, self._closing = threading.Event(), threading.Event()

    def show(self, event: Event) -> None:
        """Hand over one event, after it has been written to the ledger."""
        self._events.append(event)
        self._news.set()

    def close(self) -> Exception | None:
        """Wait until everything is shown; returns what went wrong, if anything did.

        A store that shows nothing more for a while is given up; by itself, a client may try again for many minutes.
        """
        self._closing.set()
        self._news.set()
        shown = -1
        while self.is_alive() and shown != self.shown:
            shown = self.shown
            self.join(PATIENCE)
        if self.is_alive():
            self.problem = TimeoutError(f"no answer in {PATIENCE} s")
        return self.problem

    def run(self) -> None:
        """The thread's work: until everything is shown, or the sweep is over and the store still away."""
        while True:
            last = self._closing.is_set()
            try:
                self._show_all(self.view.open(self.storage, self.plan, self.sweep, self.uri))
                self.problem = None
                return
            except Exception as problem:
                reason = _reason(problem, self.uri, self.view.public)
                if self.problem is None:
                    log.warning("tracking at %s failed: %s", self.view.public(self.uri), reason)
                self.problem = ConnectionError(reason)
            if last:
                return
            self._closing.wait(TRY_AGAIN)

    def _show_all(self, writer: Writer) -> None:
        done = writer.shown_count(self._events)
        while True:
            closing = self._closing.is_set()  # before the events: those that come with the closing are not missed
            if done < len(self._events):
                event = self._events[done]
                bring_shown(self.storage, event)
                writer.show(event)
                done += 1
                self.shown += 1
                if isinstance(event, TrialEnded):
                    writer.mark_shown(self._events[:done])
            elif closing:
                writer.mark_shown(self._events[:done])
                writer.close()
                return
            else:
                self._news.wait()
                self._news.clear()


def bring_shown(storage: Storage, event: Event) -> None:
    """Have the files here that a view shows with an event: another machine may have written them to the bucket."""
    if storage.bucket is None:
        return
    match event:
        case CellScored() | SamplesDrawn():
            needed = storage.trial(event.trial) / PICTURES / str(event.picture)
        case TrialEnded():
            needed = storage.trial(event.trial) / RECIPE
        case _:
            return
    if not needed.exists():
        storage.bring(event.trial, small=True)


def _reason(problem: Exception, uri: str, public: Callable[[str], str]) -> str:
    """What went wrong, in one line and without a password."""
    text = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    return text.replace(uri, public(uri))[:300]


def synchronise(storage: Storage, plan: Plan, events: list[Event], uri: str | None = None) -> tuple[int, str]:
    """Show what a store has not seen of a sweep; returns how many events that were, and where.

    uri: another store than the sweep's own. Raises InputError where it does not answer.
    """
    view = view_of(plan)
    place = view.address(storage, uri or plan.spec.tracking.uri)
    sweep = only(events, SweepStarted)[0].sweep
    try:
        writer = view.open(storage, plan, sweep, place)
        known = writer.shown_count(events)
        for event in events[known:]:
            bring_shown(storage, event)
            writer.show(event)
        writer.mark_shown(events)
        writer.close()
    except Exception as problem:
        raise input_error(
            f"{view.label} cannot be brought up to date",
            given=view.public(place),
            reason=_reason(problem, place, view.public),
            hint="start it, then run the same command again",
        ) from None
    return len(events) - known, view.public(place)
