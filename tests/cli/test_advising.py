"""suggest, confirm, and what rank, best and sweep say of what is next, on a ledger that is made up."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.confirmation import confirming_cell
from sweeps.planning.plan import Plan
from sweeps.spec.reading import read_spec
from sweeps.storage.layout import Storage
from tests.cli.conftest import Command, Refused
from tests.sweeps.conftest import ended, made, plan_of, scored, scored_as

SLOPE = {"optimizer.lr": [0.01, 0.02, 0.04]}


def kept(folder: Path, axes: dict[str, list[Any]], values: list[float]) -> Plan:
    """A finished sweep named `made`, one value a trial."""
    storage, plan = Storage(folder / "runs"), plan_of(axes)
    ledger = made(storage, plan)
    for trial, value in enumerate(values):
        ledger.append(
            scored(plan, trial, 0, value, stderr=0.01, left_out=[value + 0.01 * (at % 2) for at in range(10)])
        )
        ledger.append(
            ended(plan, trial, training_seconds=10.0, training_work=1e9, scoring_seconds=1.0, scoring_work=1e9)
        )
    return plan


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The storage of a sweep whose largest learning rate is the best one."""
    kept(tmp_path, SLOPE, [6.0, 3.0, 1.0])
    return tmp_path / "runs"


def test_the_advice_is_a_command_that_can_be_pasted(mpdit: Command, runs: Path) -> None:
    found = json.loads(mpdit("suggest", "--storage", runs, "--json").stdout)
    assert [(one["kind"], one["axis"]) for one in found] == [("edge", "optimizer.lr")]
    assert found[0]["cost_seconds"] > 0
    words = shlex.split(found[0]["command"])
    assert words[:2] == ["mpdit", "sweep"]
    planned = json.loads(mpdit("plan", *words[2:], "--json").stdout)
    assert [trial["params"]["optimizer.lr"] for trial in planned["trials"]] == [0.01, 0.02, 0.04, 0.08]
    assert len(planned["reused"]) == 3


def test_best_rank_and_suggest_say_the_same(mpdit: Command, runs: Path) -> None:
    best = json.loads(mpdit("best", "--storage", runs, "--json").stdout)
    text = "the best optimizer.lr, 0.04, is the largest of its axis: try 0.08 too (1 new training)"
    assert [one["text"] for one in best["advice"]] == [text]
    assert set(best["advice"][0]) == {"kind", "axis", "text", "command"}
    for command in ("rank", "suggest"):
        shown = mpdit(command, "--storage", runs).stdout
        assert "lr: 0.04, at the end of the axis: a larger one may be better" in shown
        assert text in shown
        assert best["advice"][0]["command"] in shown


def test_the_advice_beside_the_best_weights_is_of_the_whole_sweep(mpdit: Command, tmp_path: Path) -> None:
    """Two tied points of two seeds; the best weights, one training by itself, would seem to be of one seed."""
    axes: dict[str, list[Any]] = {"model.modulation": ["scale", "shift"], "seed": [0, 1]}
    storage = Storage(tmp_path / "runs")
    plan = plan_of(axes, confirm={"best": 2})
    ledger, cell = made(storage, plan), confirming_cell(plan, plan.cells[0])
    for trial, value in enumerate([1.0, 1.2, 1.1, 1.12]):
        ledger.append(scored(plan, trial, 0, value, stderr=0.01))
        ledger.append(scored_as(plan, trial, cell, value))
        ledger.append(ended(plan, trial))
    asked = ("best", "--storage", tmp_path / "runs", "--json")
    recipe, weights = (json.loads(mpdit(*asked, *more).stdout) for more in ((), ("--weights",)))
    assert (recipe["seeds"], weights["seeds"]) == (2, 1)
    assert weights["advice"] == recipe["advice"]
    assert "with 2 seeds" in recipe["advice"][0]["text"]


def test_what_does_not_fit_the_hours_is_left_out(mpdit: Command, runs: Path) -> None:
    shown = mpdit("suggest", "--storage", runs, "--hours", "0.000001").stdout
    assert "nothing that is worth it fits" in shown


def test_a_sweep_file_that_follows_the_advice_is_written(
    mpdit: Command, refused: Refused, runs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "next.yaml"
    assert mpdit("suggest", "--storage", runs, "--apply", "-o", file).returncode == 0
    assert read_spec(file).axes["optimizer.lr"] == [0.01, 0.02, 0.04, 0.08]
    assert "is there already" in refused("suggest", "--storage", runs, "--apply", "-o", file)


def test_a_settled_sweep_says_so(mpdit: Command, refused: Refused, tmp_path: Path) -> None:
    kept(tmp_path, SLOPE, [6.0, 1.0, 6.0])
    found = json.loads(mpdit("suggest", "--storage", tmp_path / "runs", "--json").stdout)
    assert [one["kind"] for one in found] == ["settled"]
    message = refused("suggest", "--storage", tmp_path / "runs", "--apply", "-o", tmp_path / "next.yaml")
    assert "no advice changes the sweep file" in message


def test_what_cannot_be_advised_is_told(refused: Refused, tmp_path: Path, runs: Path) -> None:
    assert "has 3 scored points to confirm" in refused("confirm", "--storage", runs, "--top", "9")
    assert "whole numbers" in refused("confirm", "--storage", runs, "--seeds", "one")
    assert "whole numbers" in refused("confirm", "--storage", runs, "--seeds", "1,1")
    kept(tmp_path / "empty", SLOPE, [])
    (tmp_path / "empty" / "runs" / "sweeps" / "made" / "ledger.jsonl").touch()
    assert "no cell of made has been scored" in refused("suggest", "--storage", tmp_path / "empty" / "runs")
    assert "how long it may take" in refused("sweep", "conditioning", "--until", "settled")
    assert "cannot go on until tomorrow" in refused("sweep", "conditioning", "--until", "tomorrow")
