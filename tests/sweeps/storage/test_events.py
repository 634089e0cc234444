"""What a line of a ledger is, and what is made of lines of other versions."""

import json
import logging
import math
import pickle
from pathlib import Path

import pytest

from cli.display.tables import ranking_csv
from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.staged_scoring import missing_cells
from sweeps.results.ranking import rank
from sweeps.results.trial_states import trial_states
from sweeps.search.observations import observations
from sweeps.search.rung_decisions import decide, score_of
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    RungScored,
    RungWidth,
    Suggested,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
    UnknownEvent,
    decode,
    encode,
    from_plain,
)
from sweeps.storage.ledger import Ledger, only, read
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, plan_of, scored

NOT_FINITE = (math.nan, math.inf, -math.inf)


def cell(value: float, **changed: object) -> CellScored:
    fields = {"stderr": value, "left_out": [1.0, value], "more": {"kid": value, "precision": 0.5}}
    fields |= {"magnitude_drift": value, "noise_floor": value, "scoring_seconds": value}
    return CellScored("a", 10, {"evaluation.samples": 50}, "c", "fd_digits_50", value, **(fields | changed))  # type: ignore[arg-type]


def of_a_worker(value: float) -> list[Event]:
    """Every event that a worker sends numbers in."""
    return [
        Progress("a", 10, {"loss": value, "lr": 0.1}),
        cell(value),
        RungScored("a", 10, 0.5, 50, [RungWidth(0.1, value, value, [value, 1.0], value)], value),
        TrialEnded("a", TrialStatus.COMPLETED, training_seconds=value, energy_joules=value, machine={"watts": value}),
    ]


def test_a_point_that_an_earlier_release_suggested_has_today_s_name_of_its_design(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    head = '{"time": "2026-11-24T07:12:29+00:00", "event": "suggested", "trial": null, "step": null, '
    ledger.path.write_text(head + '"params": {"model.design": "E", "optimizer.lr": 0.1}, "trials": ["a"]}\n')
    ledger = Ledger(ledger.path)
    assert ledger.append(Suggested({"model.design": "E"}, ["b"]))
    for events in (ledger.events, read(ledger.path), [from_plain(encode(event)) for event in ledger.events]):
        old, new = only(events, Suggested)
        assert old.params == {"model.design": "F", "optimizer.lr": 0.1}
        assert new.params == {"model.design": "E"}


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_number_that_is_not_finite_is_written_as_null_and_named(value: float, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    events = of_a_worker(value)
    assert all(ledger.append(event) for event in events)
    progress, scored_cell, rung, end = (json.loads(line) for line in ledger.path.read_text().splitlines())
    assert progress["metrics"] == {"loss": None, "lr": 0.1}
    assert progress["non_finite"] == ["loss"]
    assert scored_cell["non_finite"] == [
        "value",
        "stderr",
        "left_out",
        "kid",
        "magnitude_drift",
        "noise_floor",
        "scoring_seconds",
    ]
    assert {scored_cell[name] for name in ("value", "stderr", "left_out", "magnitude_drift")} == {None}
    assert scored_cell["more"] == {"kid": None, "precision": 0.5}
    assert rung["non_finite"] == ["scoring_seconds"]
    assert rung["widths"][0]["non_finite"] == ["value", "stderr", "left_out", "magnitude_drift"]
    assert end["non_finite"] == ["training_seconds", "energy_joules", "watts"]
    assert read(ledger.path) == ledger.events == [from_plain(encode(event)) for event in events]


@pytest.mark.parametrize("value", NOT_FINITE)
def test_what_reads_a_ledger_takes_such_a_number_for_one_that_is_not_known(value: float, tmp_path: Path) -> None:
    plan = plan_of({"model.modulation": ["scale", "gate"]}, scheduler={"kind": "asha", "rungs": [0.5]})
    one, other = (trial.id for trial in plan.trials)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    rungs = [RungScored(trial, 300, 0.5, 250, [RungWidth(0.1, score)]) for trial, score in ((one, value), (other, 2.0))]
    events = [SweepStarted("s", 2), TrialStarted(one), Progress(one, 10, {"loss": value}), *rungs]
    events += [scored(plan, 0, 0, value, stderr=value, drift=value), scored(plan, 1, 0, 3.0)]
    for event in [*events, ended(plan, 0, energy_joules=value), ended(plan, 1), SweepEnded(TrialStatus.COMPLETED)]:
        ledger.append(event)
    first, last = rank(plan, ledger.events)
    assert (first.trial, first.value, first.status) == (other, 3.0, "completed")
    assert (last.trial, last.value, last.status) == (one, None, "diverged")
    assert "nan" not in ranking_csv([first, last])
    assert trial_states(plan, ledger.events, alive=False)[one].as_dict()["loss"] is None
    assert missing_cells(plan, ledger.events) == {}
    assert [known.status for known in observations(plan, ledger.events)] == ["failed", "completed"]
    bad, good = only(ledger.events, RungScored)
    assert score_of(bad, METRICS["frechet"]) is None
    assert decide(plan.spec, ledger.events, good) is None
    assert decide(plan.spec, ledger.events, bad) is None


def test_an_event_is_the_same_after_its_ways(tmp_path: Path) -> None:
    """By Ray, by a queue between processes, by the ledger."""
    events = [
        *of_a_worker(0.5),
        SweepStarted("s", 2, 0.5, {"search": {"trials": 3}}),
        SweepEnded(TrialStatus.FAILED, "cut"),
    ]
    for event in events:
        assert from_plain(encode(event)) == event
        assert decode(json.dumps(encode(event)).encode()) == event
        assert pickle.loads(pickle.dumps(event)) == event


def test_a_line_begins_as_ever_and_settings_stand_beside_the_rest() -> None:
    line = encode(SweepStarted("s", 2, 0.0, {"axes": {"seed": [0]}}))
    assert list(line) == ["time", "event", "trial", "step", "sweep", "max_concurrent", "gpus_per_trial", "axes"]
    assert line["event"] == "sweep_started"
    assert list(encode(TrialStarted("a", origin="other"))) == ["time", "event", "trial", "step", "from"]


def test_a_line_of_an_earlier_version_has_the_defaults() -> None:
    old = b'{"time": "2026-01-01T00:00:00", "event": "trial_ended", "trial": "a", "step": null, "outcome": "failed"}'
    end = decode(old)
    assert isinstance(end, TrialEnded)
    assert (end.reason, end.training_pace, end.machine, end.origin) == (None, None, {}, None)


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ({"event": "trial_preempted", "trial": "a", "step": 3, "node": "n7"}, False),
        ({"event": "trial_ended", "trial": "a", "step": None, "outcome": "evicted"}, True),
    ],
)
def test_an_event_of_a_later_version_is_kept_and_is_no_error(
    line: dict[str, object], warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.jsonl"
    later = {"time": "2030-01-01T00:00:00+00:00", **line}
    path.write_text(json.dumps(later) + "\n")
    with caplog.at_level(logging.WARNING):
        (event,) = read(path)
    assert isinstance(event, UnknownEvent)
    assert (event.kind, event.trial, encode(event)) == (line["event"], "a", later)
    assert ("cannot read" in caplog.text) == warned
    plan = plan_of({"seed": [0]})
    assert rank(plan, [event])[0].status == "pending"


def test_fields_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    line = encode(TrialStarted("a")) | {"host": "n7"}
    assert from_plain(line) == decode(json.dumps(line).encode()) == TrialStarted("a", time=line["time"])


def test_a_winner_with_a_metric_that_is_not_finite_is_exported_all_the_same() -> None:
    event = from_plain(encode(cell(1.0, more={"kid": math.nan})))
    assert isinstance(event, CellScored)
    assert event.value == 1.0
    assert event.more == {"kid": None}
    assert event.non_finite == ["kid"]
    json.dumps(encode(event), allow_nan=False)


def test_one_list_of_statuses_says_what_each_means() -> None:
    final = [status for status in TrialStatus if status.is_final]
    assert final == ["diverged", "completed"]
    assert [status for status in TrialStatus if status.is_fault] == ["failed", "out_of_memory"]
    assert [status for status in TrialStatus if status.is_open] == ["interrupted", "preempted", "running", "pending"]
    assert all(status.is_open + status.is_ended + status.is_fault == 1 for status in TrialStatus)
    assert TrialStatus.worst([TrialStatus.COMPLETED, TrialStatus.FAILED, TrialStatus.DIVERGED]) == "failed"
