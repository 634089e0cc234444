"""Cells of one training whose networks differ: blocks left out, weights rounded."""

import json
from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation, evaluation_of
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.scoring.networks.asked import check_networks
from pipelines.scoring.rungs import score_rung
from pipelines.training.trainer import train
from pipelines.yaml_file import Document, validate

CHANGES: list[dict[str, Any]] = [
    {},
    {"weights": "bf16"},
    {"weights": "int8"},
    {"weights": "int4"},
    {"weights": {"name": "int4", "group": 8}},
    {"blocks": {"numbers": [0, 3]}},
    {"blocks": {"name": "uniform", "count": 2}},
    {"blocks": {"name": "importance", "count": 1}},
    {"blocks": {"name": "importance", "count": 1}, "weights": "int8", "guidance": 2.0, "guide": {"step": 0.5}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("run")
    fields = {"steps": 6, "batch": 8, "optimizer": {"lr": 0.5}, "runtime": {"device": "cpu", "threads": 1}}
    return folder, train(Recipe.model_validate(fields), folder, lambda _line: None)


def few(**settings: Any) -> Evaluation:
    return Evaluation.model_validate({"samples": 12, "steps": 2, **settings})


def scored(run: tuple[Path, Recipe], cells: list[Cell]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    evaluate(*run, cells, results.append, ScoringOptions(keep=False))
    return results


def test_off_changes_no_key_and_what_is_on_is_read_back() -> None:
    plain = Cell(0.1, Evaluation())
    off = Evaluation.model_validate({"blocks": "all", "weights": {"name": "fp32"}})
    assert (Cell(0.1, off).key, Cell(0.1, off).params) == (plain.key, plain.params)
    cells = [Cell(0.1, few(**changes)) for changes in CHANGES]
    assert len({cell.key for cell in cells}) == len(CHANGES)
    for cell in cells:
        assert evaluation_of(json.loads(json.dumps(cell.params))) == cell.evaluation
        assert Evaluation(**cell.evaluation.model_dump(mode="json")) == cell.evaluation


def test_cells_of_other_networks_are_scored_alike_together_and_alone(run: tuple[Path, Recipe]) -> None:
    changes = [CHANGES[at] for at in (0, 2, 5, 8)]
    cells = [Cell(width, few(**change)) for change in changes for width in (0.1, 0.05)]
    together = {found["cell"]: found for found in scored(run, cells)}
    for cell in (cells[3], cells[-2]):
        assert scored(run, [cell])[0]["value"] == together[cell.key]["value"]
    assert len({found["value"] for found in together.values()}) == len(cells)
    weights = {found["provenance"]["weights"] for found in together.values()}
    assert len(weights) == 2  # of the EMA widths, whatever their format
    listed = together[Cell(0.1, few(**CHANGES[5])).key]
    assert listed["provenance"]["blocks_left_out"] == [0, 3]


def test_a_rung_is_scored_with_the_network_that_the_evaluation_asks_for(run: tuple[Path, Recipe]) -> None:
    values = [score_rung(*run, 6, [0.1], few(**changes))[0]["value"] for changes in ({}, CHANGES[3])]
    assert len(set(values)) == len(values)
    assert values[0] == scored(run, [Cell(0.1, few())])[0]["value"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": "list"}, "needs a numbers"),
        ({"blocks": {"numbers": [1.5]}}, "a whole number"),
        ({"blocks": {"numbers": 2}}, "numbers"),
        ({"blocks": {"name": "uniform", "count": -1}}, "greater than or equal to 0"),
        ({"blocks": "some"}, "no choice of blocks 'some'"),
        ({"weights": "int3"}, "no weight format 'int3'"),
        ({"weights": {"name": "fp32", "group": 16}}, "has no group"),
        ({"weights": {"name": "int4", "group": -1}}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(Evaluation, Document(fields, "sweep.yaml"))


def test_blocks_that_a_network_does_not_have_or_cannot_lose_are_refused() -> None:
    with pytest.raises(InputError, match="there is no block 4"):
        check_networks(Recipe(), few(blocks={"numbers": [4]}))
    with pytest.raises(InputError, match="of 4 blocks at most 3"):
        check_networks(Recipe(), few(blocks={"name": "importance", "count": 4}))
    skips = Recipe.model_validate({"model": {"skips": True}})
    check_networks(skips, few(blocks={"name": "uniform", "count": 0}))
    with pytest.raises(InputError, match="long skips pair the blocks"):
        check_networks(skips, few(blocks={"name": "uniform", "count": 1}))
