import errno
import json
import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from mpdit.errors import DiskFull
from sweeps.storage.events import Progress, TrialEnded, TrialStarted, encode
from sweeps.storage.ledger import Ledger, read, trial_statuses
from sweeps.storage.trial_status import TrialStatus


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    lines = [TrialStarted("a"), Progress("a", 10, {"loss": 0.5})]
    assert all(ledger.append(line) for line in lines)
    assert read(path) == Ledger(path).events == lines
    assert list(json.loads(path.read_text().splitlines()[0])) == ["time", "event", "trial", "step"]


def test_a_second_report_of_the_same_thing_is_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.append(Progress("a", 10, {}))
    assert not ledger.append(Progress("a", 10, {}))
    assert not Ledger(tmp_path / "ledger.jsonl").append(Progress("a", 10, {}))
    assert ledger.append(Progress("b", 10, {}))
    assert ledger.append(TrialStarted("a"))
    assert ledger.append(TrialStarted("a"))


def test_what_another_sweep_has_copied_from_this_one_is_not_copied_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    lines = [TrialStarted("a"), TrialEnded("a", TrialStatus.COMPLETED)]
    assert all(map(ledger.append, lines))
    assert not any(ledger.append(replace(line, origin="another")) for line in lines)
    later = TrialEnded("a", TrialStatus.COMPLETED, time="2030-01-01T00:00:00+00:00", origin="another")
    assert ledger.append(later)
    assert not Ledger(ledger.path).append(later)


def test_a_torn_last_line_is_skipped_in_silence_and_the_next_line_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).append(TrialStarted("a"))
    with path.open("a") as file:
        file.write('{"time": "2026-01-01T00:00')
    with caplog.at_level(logging.WARNING):
        assert len(read(path)) == 1
    assert caplog.text == ""
    Ledger(path).append(TrialStarted("b"))
    assert [line.trial for line in read(path)] == ["a", "b"]


@pytest.mark.parametrize("damage", ["{broken", "[1, 2]", '{"no": "event"}', "\x00\x00"])
def test_a_damaged_line_is_skipped_with_a_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.jsonl"
    good = [json.dumps(encode(TrialStarted(name))) for name in "ab"]
    path.write_text("\n".join([good[0], damage, good[1], ""]))
    with caplog.at_level(logging.WARNING):
        assert [line.trial for line in read(path)] == ["a", "b"]
    assert "line 2 is damaged" in caplog.text


def test_a_value_that_json_does_not_know_is_never_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(Progress("a", 1, {"loss": float("nan")}))
    assert "NaN" not in ledger.path.read_text()
    assert read(ledger.path) == ledger.events


def test_the_last_word_decides_a_trials_status() -> None:
    events = [TrialStarted("a"), TrialEnded("a", TrialStatus.FAILED), TrialStarted("a")]
    assert trial_statuses(events[:2])["a"] == "failed"
    assert trial_statuses(events)["a"] == "interrupted"
    assert trial_statuses(events, alive=True)["a"] == "running"
    assert trial_statuses(events)["b"] == "pending"


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(Progress("a", 1, {}))
    before = ledger.path.read_bytes()

    def full(_: int) -> None:  # the machine's edge
        raise OSError(errno.ENOSPC, "No space left on device")

    line = Progress("a", 2, {})
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.storage.ledger.os.fsync", full)
        with pytest.raises(DiskFull, match="no space is left"):
            ledger.append(line)
    assert ledger.path.read_bytes() == before
    assert ledger.append(line)  # it was not taken for one that is known
    assert [line.step for line in read(ledger.path)] == [1, 2]
