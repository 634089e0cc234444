"""Two sweeps of one storage at the same time: what they share is trained once."""

from collections import Counter
from pathlib import Path

import pytest

from sweeps.storage.events import CellScored, Event, Progress, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only, read
from tests.slow.conftest import mpdit_json, start, sweep_text, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS = 200  # long enough for the second sweep to start while the first one trains


def shared_trials(ledgers: dict[str, list[Event]]) -> set[str | None]:
    """The trials that both sweeps have."""
    one, two = ({event.trial for event in events} for events in ledgers.values())
    return one & two


def test_two_sweeps_at_once_share_their_trials_and_train_each_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "runs")
    shared = "scale+rotation+gate, rotation+gate"
    (tmp_path / "one.yaml").write_text(sweep_text("one", STEPS))
    (tmp_path / "two.yaml").write_text(
        sweep_text("two", STEPS).replace(f"scale+shift+gate, {shared}", f"{shared}, gate")
    )
    alone = ("--max-concurrent", "1")
    first = start("sweep", tmp_path / "one.yaml", "--storage", storage.root, *alone)
    wait_for(storage.ledger("one"), "progress", 2, first)
    second = start("sweep", tmp_path / "two.yaml", "--storage", storage.root)
    for process in (first, second):
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    ledgers = {name: read(storage.ledger(name)) for name in ("one", "two")}
    own = [line for events in ledgers.values() for line in events if line.origin is None]
    assert {line.outcome for line in only(own, TrialEnded)} <= {"completed", "interrupted"}
    assert all(line.held for line in only(own, TrialEnded) if line.outcome == "interrupted")
    trained = Counter((line.trial, line.step) for line in only(own, Progress))
    assert set(trained.values()) == {1}
    assert len({trial for trial, _ in trained}) == 4
    on_first_noise = [line for line in only(own, CellScored) if not line.params["evaluation.seed"]]
    assert len({(line.trial, line.key) for line in on_first_noise}) == 4 * 2
    twice = [key for key, count in Counter((line.trial, line.key) for line in on_first_noise).items() if count > 1]
    assert {trial for trial, _ in twice} <= shared_trials(ledgers)  # seconds: a worker that waits for the lock scores
    for trial in {trial for trial, _ in trained}:
        log = (storage.trial(trial) / "log.txt").read_text()
        assert log.count("from step") == 1
    ranks = {name: mpdit_json("rank", name, "--storage", storage.root) for name in ledgers}
    values = [{(row["trial"], row["params"]["ema.sigma_rel"]): row["value"] for row in rows} for rows in ranks.values()]
    assert all(value is not None for known in values for value in known.values())
    both = values[0].keys() & values[1].keys()
    assert len(both) == 2 * 2
    assert all(values[0][cell] == values[1][cell] for cell in both)
