"""Reuse across a change of the code: what is warned of, what is trained again, and what the ranking marks."""

from pathlib import Path

import pytest

from pipelines.training_code import training_code
from sweeps.planning.known_work import unfinished
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Plan
from sweeps.planning.reuse import Reuse, fresh_starts, other_code, reuse_warning
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, SweepStarted, TrialEnded, TrialRetried, TrialStarted
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger, only, read, trial_statuses
from tests.sweeps.conftest import ended, made, scored


def done(plan: Plan, trial: int, code: str | None) -> list[Event]:
    start = TrialStarted(plan.trials[trial].id)
    cells = [scored(plan, trial, cell, 1.0 + trial + cell) for cell in range(len(plan.cells))]
    return [start, *cells, ended(plan, trial, code=code)]


def today(plan: Plan, trial: int = 0) -> str:
    return training_code(plan.trials[trial].recipe)


def test_only_a_known_other_code_is_warned_of(small_plan: Plan) -> None:
    assert reuse_warning(small_plan, done(small_plan, 0, None)) is None
    assert reuse_warning(small_plan, done(small_plan, 0, today(small_plan))) is None
    events = [*done(small_plan, 0, "other"), *done(small_plan, 1, None)]
    assert other_code(small_plan, events) == [small_plan.trials[0].id]
    text = reuse_warning(small_plan, events)
    assert text is not None
    assert f"trained 1 of the trials that are reused: {small_plan.trials[0].id}" in text
    assert "mpdit sweep made --reuse same-code" in text


@pytest.mark.parametrize(
    ("reuse", "code", "is_found"),
    [("any", "other", True), ("same-code", "other", False), ("same-code", None, False), ("none", None, False)],
)
def test_a_trial_of_another_sweep_is_found_as_reuse_says(
    tmp_path: Path, small_plan: Plan, reuse: str, code: str | None, is_found: bool
) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    storage.sweep("other").mkdir()
    other = Ledger(storage.ledger("other"))
    for event in [SweepStarted("s"), *done(small_plan, 0, code), *done(small_plan, 1, today(small_plan, 1))]:
        other.append(event)
    found = {event.trial for event in OtherSweeps(storage, "made", Reuse(reuse)).finished(small_plan.trials)}
    assert (small_plan.trials[0].id in found) is is_found
    assert (small_plan.trials[1].id in found) is (reuse != "none")


def test_what_is_not_reused_begins_afresh_whether_finished_or_begun(tmp_path: Path, small_plan: Plan) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    begun = storage.trial(small_plan.trials[2].id)
    begun.mkdir()
    events = [*done(small_plan, 0, "other"), *done(small_plan, 1, today(small_plan, 1))]
    asked = {reuse: [start.trial for start in fresh_starts(small_plan, storage, events, reuse)] for reuse in Reuse}
    ids = [trial.id for trial in small_plan.trials]
    assert asked == {Reuse.ANY: [], Reuse.SAME_CODE: [ids[0], ids[2]], Reuse.NONE: ids[:3]}
    (begun / "code.json").write_text(f'{{"training_code": ["{today(small_plan, 2)}"]}}')
    assert [start.trial for start in fresh_starts(small_plan, storage, events, Reuse.SAME_CODE)] == ids[:1]


def test_a_fresh_start_makes_void_what_was_reported_and_loses_no_line(tmp_path: Path, small_plan: Plan) -> None:
    storage = Storage(tmp_path)
    ledger = made(storage, small_plan)
    for event in [SweepStarted("s"), *done(small_plan, 0, "other"), *done(small_plan, 1, "other")]:
        ledger.append(event)
    before = len(ledger.events)
    trial = small_plan.trials[0].id
    assert ledger.append(TrialRetried(trial, afresh=True))
    for events in (ledger.events, read(ledger.path)):
        assert len(events) == before + 1  # as many as lines: a tracking view counts them
        assert {event.trial for event in only(events, CellScored)} == {small_plan.trials[1].id}
        assert trial_statuses(events)[trial] == "pending"
        assert small_plan.trials[0] in unfinished(small_plan, events)
        assert small_plan.trials[1] not in unfinished(small_plan, events)
    assert ledger.append(scored(small_plan, 0, 0, 9.0))  # no repetition of what is void
    assert not ledger.append(scored(small_plan, 1, 0, 9.0))
    again = read(ledger.path)
    assert [cell.value for cell in only(again, CellScored) if cell.trial == trial] == [9.0]
    assert Ledger(ledger.path).events == again


def test_a_retry_that_is_no_fresh_start_voids_nothing(tmp_path: Path, small_plan: Plan) -> None:
    ledger = made(Storage(tmp_path), small_plan)
    for event in [*done(small_plan, 0, None), TrialRetried(small_plan.trials[0].id)]:
        ledger.append(event)
    assert only(read(ledger.path), TrialEnded)


def test_the_ranking_marks_rows_of_other_code_than_the_best_one_s(small_plan: Plan) -> None:
    codes: list[list[str | None]] = [["a", "a", "a", "a"], ["a", "a", "b", "a"], ["a", "b", "a", "a"], [None] * 4]
    marks = []
    for code in codes:
        events = [event for at in range(4) for event in done(small_plan, at, code[at])]
        marks.append([row.other_code for row in rank(small_plan, events)])
        assert ("other_code" in rank(small_plan, events)[0].as_dict()) is (len(set(code)) > 1)
    assert marks[0] == marks[3] == [None] * 4
    assert sorted(marks[1], key=bool) == [False, False, True, True]
    assert marks[2][0] is True  # its own two seeds differ


def test_reading_a_ranking_does_not_ask_for_today_s_code(small_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.planning.reuse.training_code", None)
    events = [
        *done(small_plan, 0, "a"),
        *done(small_plan, 1, "b"),
        *done(small_plan, 2, "a"),
        *done(small_plan, 3, "a"),
    ]
    assert len(rank(small_plan, events)) == 4


def test_trainings_of_other_kinds_use_other_code_and_are_not_marked(small_plan: Plan) -> None:
    """Two modulations: each trial's code is its own modulation's, as a sweep of one day leaves it."""
    codes = {"scale": "a", "rotation": "b"}
    events = [
        event
        for at, trial in enumerate(small_plan.trials)
        for event in done(small_plan, at, codes[trial.params["model.modulation"]])
    ]
    assert [row.other_code for row in rank(small_plan, events)] == [None] * 4
