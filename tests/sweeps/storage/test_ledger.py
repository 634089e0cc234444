import errno
import json
import logging
from pathlib import Path

import pytest

from mpdit.errors import DiskFull
from sweeps.storage.ledger import Ledger, event, read, trial_statuses


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    lines = [event("trial_started", "a"), event("progress", "a", 10, metrics={"loss": 0.5})]
    assert all(ledger.append(line) for line in lines)
    assert read(path) == Ledger(path).events == lines
    assert {"time", "event", "trial", "step"} <= lines[0].keys()


def test_a_second_report_of_the_same_thing_is_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.append(event("progress", "a", 10, metrics={}))
    assert not ledger.append(event("progress", "a", 10, metrics={}))
    assert not Ledger(tmp_path / "ledger.jsonl").append(event("progress", "a", 10, metrics={}))
    assert ledger.append(event("progress", "b", 10, metrics={}))
    assert ledger.append(event("trial_started", "a"))
    assert ledger.append(event("trial_started", "a"))


def test_a_torn_last_line_is_skipped_in_silence_and_the_next_line_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(event("trial_started", "a"))
    with path.open("a") as file:
        file.write('{"time": "2026-01-01T00:00')
    with caplog.at_level(logging.WARNING):
        assert len(read(path)) == 1
    assert caplog.text == ""
    Ledger(path).append(event("trial_started", "b"))
    assert [line["trial"] for line in read(path)] == ["a", "b"]


@pytest.mark.parametrize("damage", ["{broken", "[1, 2]", '{"no": "event"}', "\x00\x00"])
def test_a_damaged_line_is_skipped_with_a_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.jsonl"
    good = [json.dumps(event("trial_started", name)) for name in "ab"]
    path.write_text("\n".join([good[0], damage, good[1], ""]))
    with caplog.at_level(logging.WARNING):
        assert [line["trial"] for line in read(path)] == ["a", "b"]
    assert "line 2 is damaged" in caplog.text


def test_a_value_that_json_does_not_know_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Ledger(tmp_path / "ledger.jsonl").append(event("progress", "a", 1, metrics={"loss": float("nan")}))


def test_the_last_word_decides_a_trials_status() -> None:
    events = [event("trial_started", "a"), event("trial_ended", "a", outcome="failed"), event("trial_started", "a")]
    assert trial_statuses(events[:2])["a"] == "failed"
    assert trial_statuses(events)["a"] == "interrupted"
    assert trial_statuses(events, alive=True)["a"] == "running"
    assert trial_statuses(events)["b"] == "pending"


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event("progress", "a", 1, metrics={}))
    before = ledger.path.read_bytes()

    def full(_: int) -> None:  # the machine's edge
        raise OSError(errno.ENOSPC, "No space left on device")

    line = event("progress", "a", 2, metrics={})
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.storage.ledger.os.fsync", full)
        with pytest.raises(DiskFull, match="no space is left"):
            ledger.append(line)
    assert ledger.path.read_bytes() == before
    assert ledger.append(line)  # it was not taken for one that is known
    assert [line["step"] for line in read(ledger.path)] == [1, 2]
