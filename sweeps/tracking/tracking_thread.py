"""Write the tracking view of a sweep: as events come, on a thread of the driver; or later, by `mpdit sync`."""

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from mpdit.errors import disk_is_full, input_error, no_space
from mpdit.run_folder import PICTURES, RECIPE
from sweeps.planning.plan import Plan
from sweeps.storage.events import CellScored, Event, SamplesDrawn, SweepStarted, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only
from sweeps.tracking.tracking_view import Writer, view_of

TRY_AGAIN = 5.0  # seconds between two attempts at a tracking store that is away
PATIENCE = 60  # seconds without a sign of life after which a tracking store is given up
REFUSED_AFTER = 3  # failures at one event, after which it is asked whether the store takes others
LEAST_ROOM = 1_000_000  # bytes that MLflow's empty database takes, about
BEHIND = 10  # events behind one that fails, of which the store must take one to show that it is not away

log = logging.getLogger(__name__)


class TrackingThread(threading.Thread):
    """Shows events in the tracking store as they come; the sweep never waits for the store.

    A store that fails is tried again every few seconds, from the last event that it is known to show. The next start or
    `mpdit sync` shows what it has not seen when the sweep is over. An event that fails again and again, where the store
    takes others behind it, is left out.
    """

    def __init__(self, storage: Storage, plan: Plan, sweep: str, past: Iterable[Event]) -> None:
        super().__init__(name="tracking", daemon=True)
        self.view = view_of(plan)
        self.uri = self.view.address(storage, plan.spec.tracking.uri)
        self.storage, self.plan, self.sweep = storage, plan, sweep
        self.problem: Exception | None = None
        self.shown = 0  # events that this thread has shown
        self._events = list(past)
        self._failures = Counter[int]()  # by an event's place
        self._left_out: list[Exception] = []
        self._news, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()

    def show(self, event: Event) -> None:
        """Hand over one event, after it has been written to the ledger."""
        self._events.append(event)
        self._news.set()

    def close(self) -> Exception | None:
        """Wait until everything is shown; returns what went wrong, if anything did.

        A store that shows nothing more for a while is given up; by itself, a client may try again for many minutes.
        Then no other event is shown: the sweep's lock is gone, and another driver may write.
        """
        self._closing.set()
        self._news.set()
        shown = -1
        while self.is_alive() and shown != self.shown:
            shown = self.shown
            self.join(PATIENCE)
        self._given_up.set()
        if self.is_alive():
            self.problem = TimeoutError(f"no answer in {PATIENCE} s")
        return self.problem

    def run(self) -> None:
        """The thread's work: until everything is shown, or the sweep is over and the store still away."""
        while not self._given_up.is_set():
            last = self._closing.is_set()
            try:
                self._show_all(self.view.open(self.storage, self.plan, self.sweep, self.uri))
                self.problem = self._refusals()
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
        while not self._given_up.is_set():
            closing = self._closing.is_set()  # before the events: those that come with the closing are not missed
            if done < len(self._events):
                event = self._events[done]
                self._show(writer, done)
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

    def _show(self, writer: Writer, at: int) -> None:
        """Show one event, or leave it out. Raises what the store raises, where it may take the event later."""
        try:
            show_one(self.storage, writer, self._events[at])
        except Exception:
            self._failures[at] += 1
            if self._failures[at] < REFUSED_AFTER and not self._closing.is_set():
                raise
            problem = show_or_leave_out(self.storage, writer, self._events, at)
            if problem is not None:
                self._left_out.append(problem)
                log.warning("%s refuses an event, which it will not show: %s", self.view.label, self._text(problem))

    def _text(self, problem: Exception) -> str:
        return _reason(problem, self.uri, self.view.public)

    def _refusals(self) -> Exception | None:
        if not self._left_out:
            return None
        count = len(self._left_out)
        return RuntimeError(f"it refuses {count} event{'s'[: count > 1]}: {self._text(self._left_out[0])}")


def show_one(storage: Storage, writer: Writer, event: Event) -> None:
    """Show an event, with the files that belong to it."""
    bring_shown(storage, event)
    writer.show(event)


def show_or_leave_out(storage: Storage, writer: Writer, events: Sequence[Event], at: int) -> Exception | None:
    """Show an event; where the store refuses it and takes one behind it, return the reason and leave it out.

    Raises what the store raises where it takes none of them: then it is away, or full.
    """

    def attempt(event: Event) -> Exception | None:
        try:
            show_one(storage, writer, event)
        except Exception as problem:
            return problem
        return None

    problem = attempt(events[at])
    if problem is None:
        return None
    if all(attempt(event) is not None for event in events[at + 1 : at + 1 + BEHIND]):
        raise problem
    return attempt(events[at])  # once more: it may have been away for that moment


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


def _has_no_room(storage: Storage, problem: Exception) -> bool:
    """Whether a full disk is why SQLite cannot make its files, of which it only says that reading or writing failed."""
    return "disk I/O error" in str(problem) and shutil.disk_usage(storage.root).free < LEAST_ROOM


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
        for at in range(known, len(events)):
            if (refusal := show_or_leave_out(storage, writer, events, at)) is not None:
                reason = _reason(refusal, place, view.public)
                log.warning("%s refuses an event, which it will not show: %s", view.label, reason)
        writer.mark_shown(events)
        writer.close()
    except Exception as problem:
        if disk_is_full(problem) or _has_no_room(storage, problem):
            raise no_space(storage.root) from None
        raise input_error(
            f"{view.label} cannot be brought up to date",
            given=view.public(place),
            reason=_reason(problem, place, view.public),
            hint="start it, then run the same command again",
        ) from None
    return len(events) - known, view.public(place)
