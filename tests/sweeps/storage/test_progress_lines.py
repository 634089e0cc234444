"""Progress lines whose metrics stay in the ledger until someone asks: the same events as if they were read at once."""

import json
from pathlib import Path

import pytest

from sweeps.storage.events import Progress, TrialStarted, decode, encode
from sweeps.storage.ledger import Ledger, only, read
from sweeps.storage.progress_lines import StoredMetrics

WRITTEN = Path(__file__).parents[2] / "fixtures" / "release-0.1.0" / "storage" / "sweeps" / "before" / "ledger.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with plain, copied and not finite reports, and long ones beside short lines."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(TrialStarted("a"))
    ledger.append(Progress("a", 1, {"loss": 0.5}))
    ledger.append(Progress("a", 2, {"loss": float("nan"), "drift": 1.0}, origin="other"))
    ledger.append(Progress("ä", 3, {f"metric/{at}": at / 7 for at in range(100_000)}))
    ledger.append(TrialStarted("b"))
    return ledger.path


@pytest.mark.parametrize("older", [False, True])
def test_what_is_read_is_what_stands_in_the_lines(path: Path, older: bool) -> None:
    path = WRITTEN if older else path
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    events = read(path)
    assert events == [decode(line) for line in lines]
    assert [encode(event) for event in events] == [encode(decode(line)) for line in lines]
    assert all(isinstance(event.metrics, StoredMetrics) for event in only(events, Progress))


def test_metrics_are_read_though_the_file_grows_or_is_removed_meanwhile(path: Path) -> None:
    first, second, third = only(read(path), Progress)
    Ledger(path).append(Progress("a", 9, {"loss": 0.1}))
    assert first.metrics["loss"] == 0.5
    path.unlink()
    assert second.metrics == {"loss": None, "drift": 1.0}
    assert len(third.metrics) == 100_000
    assert second.non_finite == ["loss"]
    assert second.origin == "other"


def test_metrics_of_another_version_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = encode(Progress("a", 1, {"loss": 0.5}))
    newer = [{**line, "step": 2, "metrics": ["loss"]}, {**line, "step": 3, "epoch": {"deep": [1]}}, line]
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in newer) + '{"event": "progress", "tr')
    other, extended, plain = only(read(path), Progress)
    assert caplog.text == ""
    assert (other.step, dict(other.metrics)) == (2, {})
    assert "cannot be read" in caplog.text
    assert dict(extended.metrics) == dict(plain.metrics) == {"loss": 0.5}


def test_a_progress_line_without_its_step_is_kept_as_one_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"time": "2030-01-01T00:00:00+00:00", "event": "progress", "trial": "a", "at": 1}\n')
    (event,) = read(path)
    assert event.kind == "progress"
    assert not isinstance(event, Progress)
