import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.datasets import load_dataset
from mpdit.fidelity import load_extractor
from mpdit.run_folder import read_weights, write_weights
from pipelines.evaluation import Cell, Evaluation, balanced_labels, draw_noise, evaluate, measure, reference
from pipelines.recipe import Recipe
from pipelines.training import train

FEW = Evaluation(samples=60, steps=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.model_validate({"steps": 10, "batch": 8, "runtime": {"device": "cpu", "threads": 1}})
    return folder, train(recipe, folder, lambda _line: None)


def scored(run: tuple[Path, Recipe], cells: list[Cell], step: int | None = None) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    evaluate(*run, cells, results.append, step)
    return results


def test_cells_are_scored_alike_together_and_alone(run: tuple[Path, Recipe]) -> None:
    cells = [Cell(width, FEW) for width in (0.0, 0.05, 0.1, 0.2)]
    together = scored(run, cells)
    for cell, found in zip(cells, together, strict=True):
        alone = scored(run, [cell])[0]
        assert (found["value"], found["stderr"], found["magnitude_drift"]) == (
            alone["value"],
            alone["stderr"],
            alone["magnitude_drift"],
        )
    assert len({found["value"] for found in together}) == len(cells)


def test_a_result_says_what_it_was_measured_with(run: tuple[Path, Recipe]) -> None:
    found = scored(run, [Cell(0.1, FEW)])[0]
    assert found["metric"] == "fd_digits_60"
    assert found["params"] == {
        "ema.sigma_rel": 0.1,
        "evaluation.samples": 60,
        "evaluation.sampler": "dpm++2m",
        "evaluation.steps": 4,
        "evaluation.guidance": 1.0,
        "evaluation.seed": 0,
    }
    provenance = found["provenance"]
    assert provenance["extractor_weights"] == load_extractor("digits").weights
    assert provenance["data"] == load_dataset("digits").fingerprint
    assert provenance["reference_count"] == 1797
    assert provenance["nfe"] == 4
    assert found["stderr"] > 0
    assert (run[0] / "samples" / f"{found['cell']}.png").exists()


def test_noise_does_not_depend_on_how_samples_are_batched() -> None:
    shape = torch.Size((1, 8, 8))
    whole = draw_noise(0, 10, shape, 0)
    assert torch.equal(torch.cat([draw_noise(0, 3, shape, 0), draw_noise(3, 7, shape, 0)]), whole)
    assert not torch.equal(draw_noise(0, 10, shape, 1), whole)


def test_every_class_is_asked_for_equally_often() -> None:
    assert balanced_labels(0, 2000, 10).bincount().tolist() == [200] * 10


def test_real_images_score_zero_against_themselves() -> None:
    from mpdit.datasets import to_bytes

    value, _ = measure(
        to_bytes(load_dataset("digits").images), load_extractor("digits"), reference("digits", "digits", 60)
    )
    assert value == pytest.approx(0, abs=1e-6)


def test_the_floor_falls_as_samples_grow() -> None:
    few, many = (reference("digits", "digits", count).floor for count in (100, 10_000))
    assert few > many > 0


def test_an_earlier_step_can_be_scored(run: tuple[Path, Recipe]) -> None:
    early, late = scored(run, [Cell(0.1, FEW)], step=2)[0], scored(run, [Cell(0.1, FEW)])[0]
    assert early["value"] != late["value"]


def test_samples_that_are_not_finite_leave_the_cell_without_a_value(run: tuple[Path, Recipe], tmp_path: Path) -> None:
    folder, recipe = run
    (tmp_path / "ema").mkdir()
    denoiser, step = read_weights(folder / "ema/raw.safetensors")
    torch.nn.init.constant_(denoiser.network.final.gain, math.inf)
    write_weights(tmp_path / "ema/raw.safetensors", dict(denoiser.named_parameters()), denoiser, step)
    found = scored((tmp_path, recipe), [Cell(0.0, FEW)])[0]
    assert found["value"] is None
    assert found["stderr"] is None


def test_a_cells_key_follows_its_settings() -> None:
    assert Cell(0.1, FEW).key == Cell(0.1, Evaluation(samples=60, steps=4)).key
    assert len({Cell(0.1, FEW).key, Cell(0.2, FEW).key, Cell(0.1, Evaluation(samples=61, steps=4)).key}) == 3
