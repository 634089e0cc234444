"""`evaluation.reference`: what samples are measured against in place of the data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation, evaluation_of
from pipelines.scoring.evaluation import evaluate, prepare
from pipelines.training.trainer import train
from sweeps.spec.reading import read_spec
from tests.conftest import SMALL


def digits_file(path: Path, count: int = 1797) -> Path:
    images = Recipe().dataset.pixels(torch.arange(count)).permute(0, 2, 3, 1)
    np.savez(path, arr_0=images.numpy())
    return path


def test_a_cell_is_measured_against_the_file(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({**SMALL, "steps": 1})
    settled = train(recipe, tmp_path / "run", lambda line: None, threads=1)
    whole, half = digits_file(tmp_path / "whole.npz"), digits_file(tmp_path / "half.npz", 900)
    results: list[dict[str, Any]] = []
    evaluations = [Evaluation(samples=40, steps=1, reference=file and str(file)) for file in (None, whole, half)]
    evaluate(tmp_path / "run", settled, [Cell(0.0, one) for one in evaluations], results.append)
    own, same, other = results
    assert same["value"] == pytest.approx(own["value"], rel=1e-6)
    assert other["value"] != own["value"]
    assert [one["provenance"]["reference_count"] for one in results] == [1797, 1797, 900]
    assert other["provenance"]["reference"] != own["provenance"]["reference"]
    assert len({one["cell"] for one in results}) == 3


def test_a_cell_s_key_knows_the_content_and_not_the_place(tmp_path: Path) -> None:
    def cell(file: Path) -> Cell:
        return Cell(0.1, Evaluation(reference=str(file)))

    one, moved = digits_file(tmp_path / "one.npz", 20), tmp_path / "moved.npz"
    moved.write_bytes(one.read_bytes())
    other = digits_file(tmp_path / "other.npz", 21)
    assert cell(one).key == cell(moved).key != cell(other).key
    assert cell(one).key != Cell(0.1, Evaluation()).key
    assert "evaluation.reference" not in Cell(0.1, Evaluation()).params
    assert evaluation_of(cell(one).params) == cell(one).evaluation
    key, named = cell(one).key, cell(one).evaluation
    one.unlink()  # a ranking needs the name alone
    assert Cell(0.1, Evaluation(**named.model_dump())).key == key


def test_a_reference_that_is_missing_or_has_changed_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no reference at"):
        Evaluation(reference=str(tmp_path / "none.npz"))
    file, recipe = digits_file(tmp_path / "one.npz", 20), Recipe.model_validate(SMALL)
    evaluation = Evaluation(reference=str(file))
    digits_file(file, 21)
    with pytest.raises(InputError, match=r"the reference .* has changed"):
        prepare(recipe, [evaluation])
    np.savez(file, arr_0=np.zeros((9, 16, 16, 3), np.uint8))
    with pytest.raises(InputError, match="another size"):
        prepare(recipe, [Evaluation(reference=str(file))])


def test_a_sweep_file_s_reference_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits_file(tmp_path / "reference.npz", 20)
    (tmp_path / "made.yaml").write_text("axes: {seed: [0]}\nname: made\nevaluation: {reference: reference.npz}\n")
    monkeypatch.chdir("/")
    assert str(read_spec(tmp_path / "made.yaml").evaluation.reference).startswith(f"{tmp_path}/reference.npz@sha256:")
    (tmp_path / "made.yaml").write_text("axes: {seed: [0]}\nname: made\nevaluation: {reference: none.npz}\n")
    with pytest.raises(InputError, match="there is no reference at"):
        read_spec(tmp_path / "made.yaml")
