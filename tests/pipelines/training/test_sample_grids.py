"""Grids on a training's way: one noise, the same classes, no trace in the training."""

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mpdit.run_folder import EMA, RAW_WEIGHTS
from mpdit.training.ema import TRACKED_SIGMA_RELS, reconstruct, snapshot_path, tracked_ema
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell
from pipelines.scoring.evaluation import evaluate
from pipelines.scoring.pictures import GAP, NAME_SIZE, SIDE
from pipelines.training.sample_grids import COLUMNS, DRAWN, FEW_STEPS, draw_sample_grid
from pipelines.training.trainer import train
from pipelines.training.training_folder import read_recipe


def test_a_snapshot_s_own_average_is_that_of_its_reconstruction(small_recipe: Recipe, tmp_path: Path) -> None:
    train(small_recipe, tmp_path, lambda line: None, threads=1)
    kept, (made,) = tracked_ema(tmp_path / EMA, TRACKED_SIGMA_RELS[-1], 10), reconstruct(tmp_path / EMA, [0.10], 10)
    assert kept.keys() == made.keys()
    assert all(torch.allclose(kept[name], made[name], atol=1e-5) for name in kept)


def test_the_grids_change_with_the_training_and_the_training_not_with_them(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    drawn, run = {}, tmp_path / "drawn"

    def at_snapshot(step: int) -> None:
        if step in (0, 2, 10):
            drawn[step] = draw_sample_grid(run, read_recipe(run), step)

    settled = train(small_recipe, tmp_path / "plain", lambda line: None, threads=1)
    train(small_recipe, run, lambda line: line["step"] or at_snapshot(0), 1, at_snapshot)
    plain, disturbed = (load_file(folder / EMA / RAW_WEIGHTS) for folder in (tmp_path / "plain", run))
    assert all(torch.equal(plain[name], disturbed[name]) for name in plain)
    pictures = {step: Image.open(run / "samples" / str(name)) for step, name in drawn.items()}
    side = SIDE + GAP
    assert {one.size for one in pictures.values()} == {(COLUMNS * side - GAP, DRAWN // COLUMNS * side - GAP)}
    assert pictures[0].tobytes() != pictures[2].tobytes() != pictures[10].tobytes()

    scored: list[str] = []
    evaluation = FEW_STEPS.model_copy(update={"samples": 20, "classes": "in_turn"})  # as grids ask for them
    evaluate(run, settled, [Cell(TRACKED_SIGMA_RELS[-1], evaluation)], lambda result: scored.append(result["picture"]))
    cell = pixels(Image.open(run / "samples" / scored[0]))[NAME_SIZE + GAP :]  # ten to a row, below the classes' names
    assert (cell[:SIDE, :SIDE] - pixels(pictures[10])[:SIDE, :SIDE]).abs().max() <= 2  # weights differ in rounding
    assert (cell[:SIDE, 5 * side :][:, :SIDE] - pixels(pictures[10])[side : side + SIDE, :SIDE]).abs().max() <= 2


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(picture.height, -1).float()


def test_samples_that_are_not_finite_have_no_picture(small_recipe: Recipe, tmp_path: Path) -> None:
    train(small_recipe, tmp_path, lambda line: None, threads=1)
    path = snapshot_path(tmp_path / EMA, 10)
    save_file({name: tensor * torch.inf for name, tensor in load_file(path).items()}, path, metadata={"step": "10"})
    assert draw_sample_grid(tmp_path, read_recipe(tmp_path), 10) is None
