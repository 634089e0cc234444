"""Tracking views as kinds: one that is registered is checked, opened, written and closed."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpdit.errors import InputError
from sweeps.planning.plan import Plan
from sweeps.spec.model import SweepSpec
from sweeps.spec.tracking_views import VIEWS
from sweeps.storage.events import Event
from sweeps.storage.layout import Storage
from sweeps.tracking.tracking_thread import TrackingThread, synchronise
from sweeps.tracking.tracking_view import TrackingView
from tests.sweeps.conftest import plan_of
from tests.sweeps.tracking.test_mlflow_view import story


@dataclass
class Notes:
    """A made-up store: the events that it was shown, and how many it knows of."""

    events: list[Event] = field(default_factory=list)
    known: int = 0
    is_open: bool = False
    refused: Event | None = None  # what it never takes
    failures: int = 0  # how many events it will not take now
    answers: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def show(self, event: Event) -> None:
        self.answers.wait()
        if event is self.refused:
            raise ValueError("too long")
        if self.failures:
            self.failures -= 1
            raise OSError("no space")
        self.events.append(event)

    def shown_count(self, ledger: Sequence[Event]) -> int:
        return self.known

    def mark_shown(self, events: Sequence[Event]) -> None:
        self.known = len(events)

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    """The store of a view that is registered as `notes`."""
    store = Notes()
    VIEWS.names()
    monkeypatch.setattr(VIEWS, "_kinds", dict(VIEWS._kinds))

    def opened(storage: Storage, plan: Plan, sweep: str, address: str) -> Notes:
        store.is_open = True
        return store

    VIEWS.register(
        TrackingView(
            name="notes",
            doc="made up",
            label="the notes",
            address=lambda storage, uri: uri or "here",
            check=lambda storage, uri: None,
            open=opened,
            public=lambda address: address,
        )
    )
    return store


def test_a_view_that_is_registered_shows_a_sweep(notes: Notes, tmp_path: Path) -> None:
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1]}, tracking={"view": "notes"})
    events, storage = story(plan), Storage(tmp_path)
    thread = TrackingThread(storage, plan, "s1", events[:3])
    thread.start()
    for event in events[3:]:
        thread.show(event)
    assert thread.close() is None
    assert notes.events == events
    assert notes.known == len(events)
    assert not notes.is_open
    assert synchronise(storage, plan, events) == (0, "here")


def test_an_unknown_view_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no tracking view 'mlfow'"):
        VIEWS["mlfow"]
    with pytest.raises(ValueError, match="no tracking view"):
        SweepSpec.model_validate({"name": "x", "tracking": {"view": "frechet"}})
    assert SweepSpec.model_validate({"name": "x"}).tracking.view == "mlflow"


def test_an_event_that_is_always_refused_does_not_block_those_behind_it(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.tracking_thread.TRY_AGAIN", 0.01)
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1]}, tracking={"view": "notes"})
    events, storage = story(plan), Storage(tmp_path)
    notes.refused = events[2]
    thread = TrackingThread(storage, plan, "s1", events)
    thread.start()
    assert "it refuses 1 event: too long" in str(thread.close())
    assert [event for event in events if event not in notes.events] == [events[2]]
    assert notes.known == len(events)
    notes.known, notes.events = 0, []
    assert synchronise(storage, plan, events) == (len(events), "here")
    assert [event for event in events if event not in notes.events] == [events[2]]


def test_a_store_that_takes_nothing_is_away_and_no_event_is_left_out(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.tracking_thread.TRY_AGAIN", 0.01)
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1]}, tracking={"view": "notes"})
    events, storage = story(plan), Storage(tmp_path)
    notes.failures = 20  # more than one event gets tries
    thread = TrackingThread(storage, plan, "s1", events)
    thread.start()
    while notes.failures:
        time.sleep(0.01)
    assert thread.close() is None
    assert [event for event in events if event not in notes.events] == []
    notes.failures = 1000
    with pytest.raises(InputError, match="cannot be brought up to date"):
        notes.known = 0
        synchronise(storage, plan, events)
    assert notes.known == 0


def test_a_thread_that_is_given_up_shows_nothing_more(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.tracking_thread.PATIENCE", 0.05)
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1]}, tracking={"view": "notes"})
    notes.answers.clear()
    thread = TrackingThread(Storage(tmp_path), plan, "s1", story(plan))
    thread.start()
    assert isinstance(thread.close(), TimeoutError)
    notes.answers.set()  # the call in progress comes to its end
    thread.join()
    assert len(notes.events) == 1
    assert notes.known == 0
