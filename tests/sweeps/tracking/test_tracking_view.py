"""Tracking views as kinds: one that is registered is checked, opened, written and closed."""

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

    def show(self, event: Event) -> None:
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
