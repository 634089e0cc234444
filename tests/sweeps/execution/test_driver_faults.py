"""What goes wrong in the driver while Ray Tune runs: real Ray, real training."""

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import no_space
from sweeps.execution.driver import RunOptions, SweepEnd, run
from sweeps.planning.plan import Plan
from sweeps.results.ranking import rank
from sweeps.storage.events import Event, Progress, TrialEnded, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger, only, read
from sweeps.storage.stop_requests import ask_to_stop
from tests.sweeps.conftest import plan_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SMALL: dict[str, Any] = {
    "axes": {"model.modulation": ["scale", "rotation"], "ema.sigma_rel": [0.1]},
    "recipe": {"steps": 60, "batch": 16, "runtime": {"device": "cpu"}},
    "evaluation": {"samples": 40, "steps": 3},
}


def small() -> Plan:
    return plan_of(**SMALL)


def test_a_ledger_that_finds_no_space_ends_the_sweep_with_the_reason_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, write, lines = Storage(tmp_path), Ledger._write, list[str]()

    def until_full(self: Ledger, text: str) -> None:  # the machine's edge: room for 9 lines, then none for one
        lines.append(text)
        if len(lines) == 10:
            raise no_space(self.path.parent)
        write(self, text)

    monkeypatch.setattr(Ledger, "_write", until_full)
    end = run(small(), storage, lambda event: None, RunOptions(max_concurrent=1))
    assert str(end.fault).startswith("no space is left in")
    assert end.outcome == "interrupted"
    before = read(storage.ledger("made"))
    assert [line.kind for line in before[-2:]] == ["trial_ended", "sweep_ended"]
    monkeypatch.undo()
    assert run(small(), storage, lambda event: None, RunOptions(max_concurrent=1)).outcome == "completed"
    events = read(storage.ledger("made"))
    reported = Counter((line.trial, line.step) for line in only(events, Progress))
    # at the steps 0, 1, 2, 4, …, 48 and 60; that line too: its training has not gone on after it
    assert len(reported) == 2 * 9
    assert set(reported.values()) == {1}
    assert all(row.value is not None for row in rank(small(), events))


def test_a_sweep_in_a_thread_is_stopped_without_a_signal_to_its_host(tmp_path: Path) -> None:
    storage, told, ends = Storage(tmp_path), list[int](), list[SweepEnd]()
    before = signal.signal(signal.SIGINT, lambda number, frame: told.append(number))

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.step > 0:
            ask_to_stop(storage, "made")

    try:
        thread = threading.Thread(target=lambda: ends.append(run(small(), storage, listen)))
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == []
    assert [end.outcome for end in ends] == ["interrupted"]
    stopped = only(read(storage.ledger("made")), TrialEnded)
    assert {(end.outcome, end.reason) for end in stopped} == {("interrupted", "by mpdit stop")}


def test_what_a_listener_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    storage = Storage(tmp_path)

    def listen(event: Event) -> None:
        if isinstance(event, TrialStarted):
            raise LookupError("a listener's own fault")

    with pytest.raises(LookupError, match="a listener's own fault"):
        run(small(), storage, listen)
    assert read(storage.ledger("made"))[-1].kind == "sweep_ended"
