"""Scores on the way: of the averages so far, without a trace in the training."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from mpdit.run_folder import EMA, RAW_WEIGHTS
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.scoring.rungs import rung_sigma_rels, rung_steps, score_rung
from pipelines.training.trainer import train

FEW = Evaluation(samples=40, steps=2)


def test_a_rung_is_a_snapshot_at_its_share_or_after() -> None:
    assert rung_steps(450, [0.125, 0.25, 0.5]) == [57, 114, 228]
    assert rung_steps(8, [0.5]) == [4]


def test_at_most_three_widths_that_can_be_had_are_scored() -> None:
    assert rung_sigma_rels(228, [0.0, 0.02, 0.03, 0.05, 0.1, 0.25]) == [0.02, 0.05, 0.25]
    assert rung_sigma_rels(8, [0.01, 0.1, 0.28]) == [0.1]
    assert rung_sigma_rels(57, [0.0]) == [0.05, 0.1]


def test_a_training_is_scored_on_its_way_as_it_is_afterwards_and_goes_on_unchanged(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    scored = []

    def at_snapshot(step: int) -> None:
        if step == 6:
            scored.extend(score_rung(tmp_path / "scored", settled, step, [0.05, 0.1], FEW))

    settled = train(small_recipe, tmp_path / "plain", lambda line: None, threads=1)
    train(small_recipe, tmp_path / "scored", lambda line: None, 1, at_snapshot)
    plain, disturbed = (load_file(tmp_path / run / EMA / RAW_WEIGHTS) for run in ("plain", "scored"))
    assert all(torch.equal(plain[name], disturbed[name]) for name in plain)

    later: list[float] = []
    cells = [Cell(width, FEW) for width in (0.05, 0.1)]
    evaluate(tmp_path / "plain", settled, cells, lambda result: later.append(result["value"]), ScoringOptions(step=6))
    assert [width["value"] for width in scored] == later
    assert all(len(width["left_out"]) == 10 for width in scored)
