"""Other sweeps of a storage: read once, and then only what is new."""

from pathlib import Path

import pytest

from sweeps.planning import other_sweeps
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Plan
from sweeps.storage.events import Progress, SweepStarted, TrialRetried, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from tests.sweeps.conftest import ended, scored


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(tmp_path)
    made.prepare()
    return made


def ledger(storage: Storage, name: str) -> Ledger:
    storage.sweep(name).mkdir()
    return Ledger(storage.ledger(name))


def test_what_another_sweep_finishes_meanwhile_is_found_and_each_line_is_read_once(
    storage: Storage, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small_plan.trials[:2]
    other, others = ledger(storage, "other"), OtherSweeps(storage, "made")
    ledger(storage, "made").append(TrialStarted(second.id))
    read: list[bytes] = []

    def decoded(line: bytes) -> object:
        read.append(line)
        return decode(line)

    decode = other_sweeps.decode
    monkeypatch.setattr(other_sweeps, "decode", decoded)
    for line in [SweepStarted("s"), TrialStarted(first.id), Progress(first.id, 1, {"loss": 1.0})]:
        other.append(line)
    assert others.finished([first, second]) == []
    assert len(read) == 3
    assert others.trials() == {first.id}
    assert len(read) == 3
    other.append(scored(small_plan, 0, 0, 2.0))
    other.append(ended(small_plan, 0))
    found = others.finished([first, second])
    assert [event.kind for event in found] == ["trial_started", "progress", "cell", "trial_ended"]
    assert {event.origin for event in found} == {"other"}
    assert len(read) == 3 + 2 + 4  # those of the trial once more: they are not kept in memory


def test_torn_and_damaged_lines_and_those_that_are_taken_back_harm_nothing(storage: Storage, small_plan: Plan) -> None:
    first, second = small_plan.trials[:2]
    other, others = ledger(storage, "other"), OtherSweeps(storage, "made")
    other.append(ended(small_plan, 0))
    whole = other.path.read_bytes()
    other.append(ended(small_plan, 1))
    both = other.path.read_bytes()
    for cut in range(len(whole), len(both)):
        other.path.write_bytes(both[:cut])
        assert [event.trial for event in OtherSweeps(storage, "made").finished([first, second])] == [first.id]
        assert [event.trial for event in others.finished([first, second])] == [first.id]
    other.path.write_bytes(both)
    assert [event.trial for event in others.finished([first, second])] == [first.id, second.id]
    other.path.write_bytes(whole)  # as on a full disk
    assert [event.trial for event in others.finished([first, second])] == [first.id]
    other.path.write_bytes(b"{no event}\n\n" + both)
    assert [event.trial for event in OtherSweeps(storage, "made").finished([second])] == [second.id]


def test_what_another_sweep_has_begun_afresh_is_not_what_it_was(storage: Storage, small_plan: Plan) -> None:
    first = small_plan.trials[0]
    other, others = ledger(storage, "other"), OtherSweeps(storage, "made")
    for line in [Progress(first.id, 1, {"loss": 1.0}), ended(small_plan, 0)]:
        other.append(line)
    assert len(others.finished([first])) == 2
    other.append(TrialRetried(first.id, afresh=True))
    assert others.finished([first]) == []
    assert others.trials() == {first.id}
    other.append(ended(small_plan, 0))
    assert [event.kind for event in others.finished([first])] == ["trial_ended"]
