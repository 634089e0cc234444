"""What is printed, to the letter, in 80 columns; T0, T1 … stand for the trials' ids."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from cli.display.progress import SweepProgress, watch
from cli.display.tables import fitted, plan_csv, plan_table, ranking_table
from sweeps.planning.plan import Estimate, Plan
from sweeps.results.ranking import rank
from sweeps.storage.events import Event, Progress, SweepEnded, SweepStarted, TrialStarted
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, plan_of, scored

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def plan() -> Plan:
    axes = {"model.modulation": ["scale+rotation+gate", "rotation"], "ema.sigma_rel": [0.05, 0.1]}
    return plan_of(axes, recipe={"steps": 600, "batch": 100})


def plain(text: str, plan: Plan) -> str:
    """The text with the ids by their names, and no blanks at the ends of lines."""
    for at, trial in enumerate(plan.trials):
        text = text.replace(trial.id, f"T{at}".ljust(10))
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def progress(plan: Plan, trial: int, step: int) -> Event:
    metrics = {"loss": 0.5, "images_per_second": 400.0, "magnitude_drift": 0.02}
    return Progress(plan.trials[trial].id, step, metrics)


def begun(plan: Plan) -> list[Event]:
    """One trial is scored, the other half-way; a minute has passed."""
    return [
        SweepStarted("s", 2, time=BEGAN.isoformat()),
        TrialStarted(plan.trials[0].id),
        TrialStarted(plan.trials[1].id),
        progress(plan, 0, 600),
        progress(plan, 1, 300),
        scored(plan, 0, 0, 2.5),
        scored(plan, 0, 1, 3.5),
        ended(plan, 0),
    ]


def a_minute_later() -> datetime:
    return BEGAN + timedelta(minutes=1)


def console(text: io.StringIO, terminal: bool) -> Console:
    return Console(file=text, force_terminal=terminal, width=80, height=24, no_color=True, legacy_windows=False)


def test_the_ranking(plan: Plan) -> None:
    events = [scored(plan, 0, 0, 2.5), scored(plan, 0, 1, 2.6), scored(plan, 1, 0, 4.5), scored(plan, 1, 1, None)]
    rows = rank(plan, [*events, ended(plan, 0), ended(plan, 1)])
    assert plain(ranking_table(rows, list(plan.spec.axes)), plan) == (
        """\
  rank modulation          sigma_rel fd_digits_2k     ± status   needs
     1 scale+rotation+gate      0.05        2.500 0.100
=    2 scale+rotation+gate       0.1        2.600 0.100          18,000 samples
     3 rotation                 0.05        4.500 0.100
     – rotation                  0.1            –     – diverged
(no room at 80 columns: drift, trial)"""
    )


def test_what_would_tell_two_rows_stays_where_there_is_little_room() -> None:
    plan = plan_of({"model.modulation": ["scale+rotation+gate", "rotation"], "ema.sigma_rel": [0.05, 0.1]})
    cells = {"left_out": [2.5 + at / 10 for at in range(10)]}
    events = [scored(plan, trial, cell, 2.5 + trial / 100, **cells) for trial in (0, 1) for cell in (0, 1)]
    rows = [replace(row, confirmed=2.5) for row in rank(plan, [*events, ended(plan, 0), ended(plan, 1)])]
    text = ranking_table(rows, list(plan.spec.axes))
    assert "more seeds" in text
    assert "needs" in text.splitlines()[0]
    assert "(no room at 80 columns: drift, trial" in text
    assert max(map(len, text.splitlines())) <= 80


def test_no_column_is_there_twice() -> None:
    plan = plan_of({"steps": [100, 200], "evaluation.steps": [2, 4], "ema.sigma_rel": [0.1]})
    header = plan_table(plan, [], [], Estimate(None, None, 0.1)).splitlines()[0].split()
    assert header == ["trial", "steps", "parameters", "state"]
    assert plan_csv(plan, [], []).splitlines()[0] == "trial,steps,parameters,state"
    ranked = ranking_table(rank(plan, []), list(plan.spec.axes)).splitlines()[0].split()
    assert [name for name in ranked if "steps" in name] == ["steps", "evaluation.steps"]


def test_what_another_sweep_has_done_counts_from_the_start(plan: Plan) -> None:
    taken_over = [replace_origin(event) for event in (scored(plan, 0, 0, 2.5), scored(plan, 0, 1, 3.5), ended(plan, 0))]
    text = io.StringIO()
    with SweepProgress(plan, taken_over, console(text, terminal=False), a_minute_later) as shown:
        shown(SweepStarted("s", 2, time=BEGAN.isoformat()))
    assert text.getvalue().startswith("1/2 trials, 50% done")


def replace_origin(event: Event) -> Event:
    return msgspec.structs.replace(event, origin="another")


def test_the_plan(plan: Plan) -> None:
    text = plain(plan_table(plan, plan.trials[1:], plan.trials, Estimate(0.1, 0.0, 0.25)), plan)
    assert text == (
        """\
trial       modulation           parameters  steps  state
T0          scale+rotation+gate     306,459    600  to score
T1          rotation                236,810    600  to train

2 trials (model.modulation): 1 to train, 1 only to score
× 2 cells each (ema.sigma_rel; post-hoc, no training) = 4 cells
time: about 6 min 0 s, 0.00 GPU-hours
disk: about 0.25 GB"""
    )
    assert plain(plan_csv(plan, plan.trials[1:], plan.trials), plan) == (
        """\
trial,model.modulation,parameters,steps,state
T0        ,scale+rotation+gate,306459,600,to score
T1        ,rotation,236810,600,to train"""
    )


def test_a_plan_says_where_the_time_goes(plan: Plan) -> None:
    cost = Estimate(0.1, 0.0, 0.25, training_hours=0.15, scoring_hours=0.05)
    new = plan_table(plan, plan.trials, plan.trials, cost)
    assert (
        """\
time: about 6 min 0 s, 0.00 GPU-hours
  training 75%, scoring 25%
  each axis: model.modulation × 2, ema.sigma_rel × 1.1
  saves most: --set recipe.steps=300: −38%
disk:"""
        in new
    )
    begun = plan_table(plan, plan.trials[1:], plan.trials, cost)  # what remains is of another size than the axes say
    assert "training 75%" in begun
    assert "each axis" not in begun


def test_a_sweep_on_a_terminal(plan: Plan) -> None:
    text = io.StringIO()
    shown = SweepProgress(plan, begun(plan), console(text, terminal=True), a_minute_later)
    shown.console.print(shown.shown())
    assert plain(text.getvalue(), plan).split("━")[0].rstrip() == (
        """\
trial      modulation          status    step    img/s  loss  best       left
T0         scale+rotation+gate completed 600/600   400 0.500 2.500          –
T1         rotation            running   300/600   400 0.500     – 1 min 15 s
(no room at 80 columns: cells, drift)"""
    )
    assert text.getvalue().strip().endswith("1/2 trials, 70% done, 1 min 0 s, about 26 s left")


def test_a_sweep_without_a_terminal_says_a_line_now_and_then(plan: Plan) -> None:
    text = io.StringIO()
    with SweepProgress(plan, [], console(text, terminal=False), a_minute_later) as shown:
        for line in begun(plan):
            shown(line)
    assert plain(text.getvalue(), plan) == (
        """\
0/2 trials, 0% done, 1 min 0 s
T0         scale+rotation+gate: completed, best distance 2.500"""
    )


def test_watching_ends_with_the_sweep(plan: Plan) -> None:
    text = io.StringIO()
    last = SweepEnded(TrialStatus.INTERRUPTED, time=a_minute_later().isoformat())
    watch(plan, lambda: [*begun(plan), last], lambda: False, console(text, terminal=False))
    assert text.getvalue() == "1/2 trials, 70% done, 1 min 0 s, about 26 s left\n"


def test_a_large_sweep_fits_the_terminal() -> None:
    plan = plan_of({"seed": list(range(60))})
    text = io.StringIO()
    shown = SweepProgress(plan, [TrialStarted(plan.trials[50].id)], console(text, terminal=True))
    shown.console.print(shown.shown())
    lines = text.getvalue().splitlines()
    assert len(lines) <= 24
    assert plan.trials[50].id in lines[1]
    assert any("… and 44 more: 44 pending" in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_table_is_wider_than_the_terminal(width: int) -> None:
    text = fitted(["trial", "a long name", "spare"], [["0123456789", "x" * 90, "y" * 30]], width, ["spare"])
    assert max(map(len, text.splitlines())) <= width
    assert "…" in text


def test_the_last_lines_of_a_failing_trial_are_shown_with_the_path(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.sweeping import _print_failures
    from sweeps.storage.layout import Storage

    storage = Storage(tmp_path)
    storage.trial(plan.trials[0].id).mkdir(parents=True)
    log = storage.trial(plan.trials[0].id) / "log.txt"
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    _print_failures(plan, [ended(plan, 0, "failed", reason="it broke")], storage)
    said = capsys.readouterr().err
    assert f"failed: it broke\n  {log}\n    line 14\n" in said
    assert said.endswith("    line 19\n")
