"""The report: every number from the ledger, one file without a network, readable by a screen reader."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cli.display.tables import ranking_table
from mpdit.errors import InputError
from sweeps.advice.axis_answers import axis_answers
from sweeps.planning.plan import Plan
from sweeps.report.figures import learning, magnitudes, maps, sweep_data
from sweeps.report.page import answer, render, write_report
from sweeps.report.svg import Chart, Scale, Series, figure, in_column, line_chart
from sweeps.results.importance import importances, local_importances, write_study
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, Progress, SweepEnded, SweepStarted, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, plan_of, scored

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib's own

AXES = {"model.modulation": ["scale", "rotation"], "optimizer.lr": [0.01, 0.02], "ema.sigma_rel": [0.05, 0.1, 0.2]}


WRITTEN_IN_QUESTION = {
    "magnitude_drift": "lowest magnitude drift",
    "parameters": "fewest parameters",
    "step_time": "lowest seconds a step",
}


def progress(plan: Plan, trial: int, step: int, loss: float | None, mean: float) -> Event:
    metrics = {f"magnitude/block{block}/mlp/residual/mean": mean + block / 10 for block in range(2)}
    metrics |= {f"magnitude/block{block}/mlp/residual/std": 0.125 for block in range(2)}
    metrics |= {f"magnitude/block{at // 2}/{('attention', 'mlp')[at % 2]}/input/mean": 1.0 + at for at in range(4)}
    if loss is not None:
        metrics["loss"] = loss
    return Progress(plan.trials[trial].id, step, metrics)


def story(plan: Plan) -> list[Event]:
    lines: list[Event] = [SweepStarted("s", 2)]
    for trial in range(len(plan.trials)):
        lines += [progress(plan, trial, 0, None, 1.0), progress(plan, trial, 600, 0.5 + trial, 1.5)]
        lines += [scored(plan, trial, cell, 2.0 + trial + cell / 7) for cell in range(len(plan.cells))]
        lines.append(ended(plan, trial, training_seconds=60.0, machine={"device": "cpu", "device_name": "a CPU"}))
    return [*lines, SweepEnded(TrialStatus.COMPLETED)]


class Page(HTMLParser):
    """What is in a page: its text, and the tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "circle", "line", "polygon", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(AXES)


@pytest.fixture(scope="module")
def html(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> str:
    events = story(plan)
    return render(Storage(tmp_path_factory.mktemp("storage")), plan, rank(plan, events), events)


def test_the_page_needs_no_network_and_every_tag_is_closed(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert not [a for _, a in page.tags if "src" in a or a.get("href", "").startswith("http")]
    assert "@import" not in html and "url(" not in html and "<script" not in html


def test_every_row_of_the_ranking_is_there_with_its_value(html: str, plan: Plan) -> None:
    text = " ".join(Page(html).text)
    for row in rank(plan, story(plan)):
        assert in_column(row.value) in text
        assert row.trial in text


def test_the_numbers_are_the_ledger_s(plan: Plan, tmp_path: Path) -> None:
    events = story(plan)
    other = [replace(line, value=line.value * 3) if isinstance(line, CellScored) else line for line in events]
    page = render(Storage(tmp_path), plan, rank(plan, other), other)
    assert "with fd_digits_2k 6 ±" in page
    assert "with fd_digits_2k 2 ±" not in page
    assert "4.0 min" in page  # four trainings of a minute


def test_each_drawing_has_a_text_and_each_table_header_a_scope(html: str) -> None:
    tags = Page(html).tags
    drawings = [a for tag, a in tags if tag == "svg"]
    assert len(drawings) >= 5
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 30 for a in drawings)
    assert all(a.get("scope") in ("col", "row") for tag, a in tags if tag == "th")


def test_it_is_for_phones_print_and_the_dark(html: str) -> None:
    assert 'name="viewport"' in html
    assert "@media print" in html
    assert "prefers-color-scheme: dark" in html
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", html)) - {"--t", "--c"}
    dark = html.split("prefers-color-scheme: dark")[1].split("* {")[0]
    assert used <= set(re.findall(r"(--[a-z0-9]+):", dark))


def test_the_magnitudes_are_those_of_the_start_and_the_end(plan: Plan) -> None:
    events = story(plan)
    found = magnitudes(sweep_data(plan, rank(plan, events), events))
    assert found is not None
    assert [title for title, _ in found.drawings] == ["scale, lr 0.01", "rotation, lr 0.01"]
    assert list(found.table.lines[:2]) == [
        ["scale: step 0", "1 ± 0.375", "1.1 ± 0.375"],
        ["scale: step 600", "1.5 ± 0.375", "1.6 ± 0.375"],
    ]
    under_way = [replace(line, step=line.step // 2) if isinstance(line, Progress) else line for line in events]
    latest = magnitudes(sweep_data(plan, rank(plan, under_way), under_way))
    assert [found.legend[1][1], latest and latest.legend[1][1]] == [
        "stream, end of training",
        "stream, the latest report",
    ]
    assert "inputs at step 600: 1, 2, 3, 4" in found.drawings[0][1]
    losses = learning(sweep_data(plan, rank(plan, events), events))
    assert losses is not None and "0.5 (step 600)" in losses.table.lines[0]


def test_one_map_for_each_modulation_with_ties_marked(plan: Plan) -> None:
    events = story(plan)
    found = maps(sweep_data(plan, rank(plan, events), events))
    assert [(one.title, one.down, one.across) for one in found] == [
        ("scale", "lr", "σ_rel"),
        ("rotation", "lr", "σ_rel"),
    ]
    assert found[0].lines[0][1][0] == ("2", 1.0, True)


def several(plan_axes: dict[str, list[Any]], drifts: list[float]) -> tuple[Plan, list[Event]]:
    """A sweep for distance and drift whose cells, at distances 2, 3 …, have these drifts."""
    plan = plan_of(plan_axes, objective=[{"metric": "frechet"}, {"metric": "magnitude_drift"}])
    cells = [scored(plan, 0, at, 2.0 + at, drift=drift) for at, drift in enumerate(drifts)]
    return plan, [SweepStarted("s", 1), *cells, ended(plan, 0)]


def test_with_several_objectives_the_front_is_told_marked_and_drawn(tmp_path: Path) -> None:
    plan, events = several({"ema.sigma_rel": [0.05, 0.1, 0.15, 0.2]}, [0.4, 0.5, 0.1, 0.1])
    html = render(Storage(tmp_path), plan, rank(plan, events), events)
    text = " ".join("".join(Page(html).text).split())
    assert "the lowest fd_digits_2k and the lowest magnitude drift after" in text
    assert (
        "2 of the 4 cells are on the Pareto front of fd_digits_2k and magnitude drift, from σ_rel 0.05 "
        "(fd_digits_2k 2, magnitude drift 0.4) to σ_rel 0.15 (fd_digits_2k 4, magnitude drift 0.1). Each other cell"
    ) in text
    assert re.findall(r'<td>([*=!]?)</td><td class="n">(\d)</td>', html) == [
        ("*", "1"),
        ("*", "2"),
        ("", "3"),
        ("", "4"),
    ]
    drawing = html.split('id="front"')[1].split("</section>")[0]
    assert drawing.count("<circle") == 4
    assert drawing.count("<polyline") == 1  # through the front alone


def test_a_cell_that_is_best_in_all_objectives_is_the_whole_front() -> None:
    plan, events = several({"ema.sigma_rel": [0.05, 0.1]}, [0.1, 0.2])
    first, _ = answer(sweep_data(plan, rank(plan, events), events))
    assert first == (
        "Best in both of fd_digits_2k and magnitude drift is σ_rel 0.05 (fd_digits_2k 2, magnitude drift 0.1)."
    )


@pytest.mark.parametrize("by", ["magnitude_drift", "parameters", "step_time"])
def test_a_report_can_be_by_any_metric_even_where_it_is_0_everywhere(by: str, plan: Plan, tmp_path: Path) -> None:
    events = [replace(line, magnitude_drift=0.0) if isinstance(line, CellScored) else line for line in story(plan)]
    page = render(Storage(tmp_path), plan, rank(plan, events, by), events)
    assert f"the {WRITTEN_IN_QUESTION[by]} after" in page


def test_energy_is_that_of_the_trials_that_could_tell(plan: Plan, tmp_path: Path) -> None:
    events = story(plan)
    assert "not told by the driver" in render(Storage(tmp_path), plan, rank(plan, events), events)
    stopped, told = plan.trials[0].id, plan.trials[1].id
    lines = [
        replace(line, metrics={**line.metrics, "energy_joules": 1800.0})
        if isinstance(line, Progress) and line.trial in (stopped, told)
        else replace(line, energy_joules=5400.0)
        if isinstance(line, TrialEnded) and line.trial == told
        else line
        for line in events
    ]
    page = render(Storage(tmp_path), plan, rank(plan, lines), lines)
    assert "0.002 kWh of 2 of 4 trials" in page  # 1800 J so far of the one, 5400 J of the other: 2 Wh


def test_the_axis_that_decides_is_the_most_important() -> None:
    plan = plan_of({"model.modulation": ["scale", "rotation"], "optimizer.lr": [0.01, 0.02, 0.03, 0.04], "seed": [0]})
    cells = [scored(plan, at, 0, 1.0 + 5 * trial.params["optimizer.lr"]) for at, trial in enumerate(plan.trials)]
    rows = rank(plan, [*cells, *(ended(plan, at) for at in range(len(plan.trials)))])
    found = importances(plan, rows)
    assert next(iter(found)) == "optimizer.lr"
    assert sum(each.share for each in found.values()) == pytest.approx(1)
    assert all(each.low <= each.share <= each.high for each in found.values())
    assert importances(plan, rows[:3]) == {}


def test_around_the_best_an_axis_matters_that_does_not_overall() -> None:
    """The rate moves the value a hundredfold; at the best rates the modulation moves it by a third."""
    plan = plan_of({"model.modulation": ["scale", "rotation"], "optimizer.lr": [0.01, 0.02, 0.03, 0.04]})
    values, factor = {0.01: 9000.0, 0.02: 400.0, 0.03: 82.0, 0.04: 81.0}, {"scale": 1.0, "rotation": 1.37}
    found = [values[t.params["optimizer.lr"]] * factor[t.params["model.modulation"]] for t in plan.trials]
    cells = [scored(plan, at, 0, value, stderr=0.01) for at, value in enumerate(found)]
    rows = rank(plan, [*cells, *(ended(plan, at) for at in range(8))])
    overall, local = importances(plan, rows), local_importances(rows)
    assert next(iter(overall)) == "optimizer.lr"
    assert next(iter(local)) == "model.modulation"
    assert local["model.modulation"].share > 0.9
    assert sum(each.share for each in local.values()) == pytest.approx(1)
    assert all(0 <= each.low <= each.high <= 1 for each in local.values())
    assert local_importances([row for row in rows if row.rank in (1, 8)]) == {}  # they differ in both axes


def test_the_cells_are_an_optuna_study_in_a_file(plan: Plan, tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    events, path = story(plan), tmp_path / "deep" / "study.log"
    rows = rank(plan, events)
    for _ in range(2):  # written again, it is not doubled
        write_study(plan, rows, path)
    study = optuna.load_study(study_name=plan.spec.name, storage=JournalStorage(JournalFileBackend(str(path))))
    scored_rows = [row for row in rows if row.value is not None and row.status == "completed"]
    assert len(study.trials) == len(scored_rows)
    assert study.best_value == scored_rows[0].value
    assert study.best_params["ema.sigma_rel"] == scored_rows[0].params["ema.sigma_rel"]
    with pytest.raises(InputError, match="no cell of"):
        write_study(plan, rank(plan, []), path)


def test_a_sweep_that_has_only_begun_has_a_report_and_an_empty_one_none(plan: Plan, tmp_path: Path) -> None:
    events = story(plan)[:3]
    path = write_report(Storage(tmp_path), plan, rank(plan, events), events, tmp_path / "deep" / "r.html")
    told = path.read_text()
    assert "No cell has been scored in full yet" in told
    assert "12 cells are still to be scored." in told
    assert "stream, end of training" in told
    for nothing in ("reused from", "would tell", ">Wh<"):
        assert nothing not in told
    with pytest.raises(InputError, match="nothing of made has been reported"):
        write_report(Storage(tmp_path), plan, rank(plan, []), events[:1], tmp_path / "r.html")


def test_a_name_with_markup_is_shown_as_it_is() -> None:
    series = [Series("<b>&", [(0.0, 1.0), (1.0, 2.0)])]
    drawn = line_chart(Chart("<i>", "&", "a<b", "c"), series)
    assert "<b>" not in drawn
    assert "<i>" not in drawn


def test_ticks_are_round_and_inside() -> None:
    ticks = Scale(1.5, 8.0, 0, 1, log=True).ticks
    assert len(ticks) > 2
    assert all(1.5 <= tick <= 8 for tick in ticks)
    assert Scale(0, 3, 0, 1, whole=True).ticks == [0, 1, 2, 3]
    assert Scale(10.0, 1000.0, 0.0, 2.0, log=True)(100.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "written"), [(None, "–"), (float("nan"), "–"), (1.62, "1.62"), (0.0, "0"), (2e-6, "2.00e-06")]
)
def test_a_figure_is_short(value: float | None, written: str) -> None:
    assert figure(value) == written


def test_figures_below_each_other_have_as_many_digits() -> None:
    assert [in_column(value) for value in (1.62, 12.5, 0.1753, 0.0, 3e-5, None)] == [
        "1.620",
        "12.500",
        "0.175",
        "0",
        "3.00e-05",
        "–",
    ]


def test_axes_of_intervals_and_of_nothing_are_ranked_drawn_and_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    axes = {
        "ema.sigma_rel": [0.05, 0.1],
        "evaluation.guidance_interval": [None, [0.3, 5.0]],
        "evaluation.guide.step": [1.0, 0.25],
        "evaluation.guide.sigma_rel": [None, 0.13],
    }
    plan = plan_of(axes, evaluation={"guidance": 2.0})
    events = story(plan)
    rows = rank(plan, events)
    assert len(rows) == 16
    assert set(importances(plan, rows)) == set(axes)
    table = ranking_table(rows, list(axes))
    for text in ("guidance_interval", "guide.step", "guide.sigma_rel", "[0.3, 5.0]", "none"):
        assert text in table
    said = {answer.axis: answer.text for answer in axis_answers(plan.spec.axes, rows)}
    assert said["evaluation.guidance_interval"].startswith("guidance_interval: ")
    write_study(plan, rows, tmp_path / "study.log")
    page = render(Storage(tmp_path), plan, rows, events)
    assert "guidance_interval none" in page
    assert "guidance_interval [0.3, 5.0]" in page
