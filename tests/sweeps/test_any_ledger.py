"""Whatever a crash or a bad disk leaves of a ledger, it is read, ranked, shown and continued."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.display.tables import ranking_csv
from sweeps.planning.known_work import cost_of, unfinished
from sweeps.planning.plan import Plan, make_plan
from sweeps.report.page import render
from sweeps.results.ranking import rank
from sweeps.results.trial_states import trial_states
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    RungScored,
    RungWidth,
    SweepEnded,
    SweepStarted,
    TrialRetried,
    TrialStarted,
)
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger, identity, read, trial_statuses
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, made, plan_of, scored

AXES = {"model.modulation": ["scale", "rotation"], "seed": [0, 1], "ema.sigma_rel": [0.05, 0.1]}
PLAN = plan_of(AXES, recipe={"steps": 100}, evaluation={"samples": 200})
OTHERS = b'\x00\xff"{}[]:,.-+eE0159nNa \\\n'
FOLDS = [2.0 + 0.1 * fold for fold in range(10)]


def lives(plan: Plan) -> list[list[Event]]:
    """What each trial reports when nothing disturbs it; the third one diverges, the last one fails."""
    told: list[list[Event]] = []
    for number, trial in enumerate(plan.trials):
        metrics = {"loss": 0.5, "images_per_second": 10.0, "magnitude_drift": 0.1}
        steps: list[Event] = [Progress(trial.id, step, metrics) for step in (0, 50, 100)]
        width = RungWidth(0.1, value=3.0, stderr=0.1, left_out=FOLDS)
        rung = RungScored(trial.id, 50, rung_fraction=0.5, samples=100, widths=[width])
        cells = [scored(plan, number, cell, 2.0 + number, left_out=FOLDS, samples=200) for cell in (0, 1)]
        if number == 2:
            told.append([TrialStarted(trial.id), *steps[:2], ended(plan, number, "diverged", reason="nan")])
        elif number == 3:
            told.append([TrialStarted(trial.id), *steps[:2], ended(plan, number, "failed", reason="a bug")])
        else:
            end = ended(plan, number, training_seconds=9.0, training_work=3.0, scoring_seconds=1.0, scoring_work=1.0)
            told.append([TrialStarted(trial.id), *steps, rung, *cells, end])
    return told


def whole() -> list[Event]:
    """A sweep that nothing disturbed."""
    middle = [event for life in lives(PLAN) for event in life]
    return [SweepStarted("s", 2, 0.0), *middle, SweepEnded(TrialStatus.FAILED)]


def everything_reads(storage: Storage, events: list[Event]) -> None:
    """What every reading command does with a ledger's events."""
    plan = make_plan(PLAN.spec, events, storage.trial_names())
    for alive in (True, False):
        states = trial_states(plan, events, alive)
        assert list(states) == [trial.id for trial in plan.trials]
        assert [state.as_dict() for state in states.values()]
        rows = rank(plan, events, alive=alive)
        assert len(rows) == 4  # two modulations, their seeds merged, at two widths
        assert [row.as_dict() for row in rows]
        ranking_csv(rows)
    rank(plan, events, "step_time")
    if any(isinstance(event, (Progress, CellScored)) for event in events):
        render(storage, plan, rows, events)
    cost_of(plan, storage, events)
    unfinished(plan, events)


def continues(storage: Storage) -> None:
    """A driver takes the ledger up: what it appends is there beside what was readable."""
    path = storage.ledger("made")
    before = read(path)
    ledger = Ledger(path)
    assert ledger.events == before
    started = TrialStarted(PLAN.trials[0].id)
    ledger.append(started)
    for event in lives(PLAN)[1]:
        ledger.append(event)
    after = read(path)
    assert after[: len(before)] == before
    assert started in after
    assert trial_statuses(after)[PLAN.trials[1].id] is TrialStatus.COMPLETED
    known = [name for name in map(identity, after) if name is not None]
    assert len(set(known)) == len(known) or len(known) - len(set(known)) == repeated(before)


def repeated(events: Sequence[Event]) -> int:
    known = [name for name in map(identity, events) if name is not None]
    return len(known) - len(set(known))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(tmp_path_factory.mktemp("harmed"))
    ledger = made(storage, PLAN)
    for event in whole():
        ledger.append(event)
    storage.ledger("made").rename(storage.root / "whole.jsonl")
    return storage


def harmed(storage: Storage, seed: int) -> bytes:
    """The ledger cut anywhere, or with a few bytes changed, removed or doubled."""
    chance, text = random.Random(seed), bytearray((storage.root / "whole.jsonl").read_bytes())
    for _ in range(chance.choice((0, 1, 1, 2, 8))):
        at, length = chance.randrange(len(text)), chance.choice((1, 1, 1, 40, 500))
        what = chance.choice(("change", "remove", "double"))
        if what == "change":
            text[at] = chance.choice(OTHERS)
        else:
            text[at : at + length] = b"" if what == "remove" else bytes(text[at : at + length]) * 2
    return bytes(text[: chance.randrange(len(text))]) if chance.random() < 0.5 else bytes(text)


def survives(storage: Storage, text: bytes) -> None:
    storage.ledger("made").write_bytes(text)
    everything_reads(storage, read(storage.ledger("made")))
    continues(storage)
    everything_reads(storage, read(storage.ledger("made")))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_harmed_ledger_is_read_and_continued(storage: Storage, seed: int) -> None:
    survives(storage, harmed(storage, seed))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=3000)
@given(seed=st.integers(0, 2**32))
def test_many_harmed_ledgers(storage: Storage, seed: int) -> None:
    """Adds to CI: three thousand ledgers, each cut or harmed in other places."""
    survives(storage, harmed(storage, seed))


@st.composite
def crashes(draw: Any) -> list[Event]:
    """Events as crashes can leave them: drivers that end without a word, workers that begin again, in any order."""
    events: list[Event] = []
    done = [0] * len(PLAN.trials)
    for _ in range(draw(st.integers(1, 4))):
        events.append(SweepStarted("s", draw(st.sampled_from([None, 1, 2])), 0.0))
        for at in range(len(PLAN.trials)):
            if done[at] and draw(st.booleans()):
                events.append(draw(st.sampled_from([TrialStarted, TrialRetried]))(PLAN.trials[at].id))
        for _ in range(draw(st.integers(0, 24))):
            at = draw(st.integers(0, len(PLAN.trials) - 1))
            life = lives(PLAN)[at]
            if done[at] < len(life):
                events.append(life[done[at]])
                done[at] += 1
            if draw(st.integers(0, 5)) == 0:  # the worker died: its last reports come again
                done[at] = max(0, done[at] - draw(st.integers(1, 4)))
        if draw(st.booleans()):
            events.append(SweepEnded(draw(st.sampled_from([TrialStatus.INTERRUPTED, TrialStatus.COMPLETED]))))
    return events


@settings(max_examples=15)
@given(events=crashes())
def test_events_as_crashes_leave_them_lose_nothing(storage: Storage, events: list[Event]) -> None:
    storage.ledger("made").unlink(missing_ok=True)
    ledger = Ledger(storage.ledger("made"))
    for event in events:
        ledger.append(event)
    known = read(storage.ledger("made"))
    assert known == ledger.events
    assert repeated(known) == 0
    everything_reads(storage, known)
    statuses, left = trial_statuses(known), {trial.id for trial in unfinished(PLAN, known)}
    for trial in PLAN.trials:
        assert statuses[trial.id].is_final or trial.id in left or statuses[trial.id].is_ended
    continues(storage)


def test_a_time_without_a_zone_is_utc(storage: Storage) -> None:
    text = (storage.root / "whole.jsonl").read_text()
    storage.ledger("made").write_text(text.replace("+00:00", "", 1))
    everything_reads(storage, read(storage.ledger("made")))


@pytest.mark.parametrize(
    ("there", "harmed"),
    [
        ("+00:00", "+00:000"),
        ('"time"', '"tine"'),
        ('"evaluation.samples"', '"evaluation.sanples"'),
        ('"evaluation.samples": 200', '"evaluation.samples": "200"'),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_line_that_says_less_than_it_must_is_damaged(storage: Storage, there: str, harmed: str) -> None:
    lines = (storage.root / "whole.jsonl").read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if there in line:
            text = "".join([*lines[:number], line.replace(there, harmed, 1), *lines[number + 1 :]])
            storage.ledger("made").write_text(text)
            assert len(read(storage.ledger("made"))) == len(lines) - 1
