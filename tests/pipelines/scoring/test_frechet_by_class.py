"""The Fréchet distance class by class: closed cases, and that it is measured where it is asked for and nowhere else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mpdit.errors import InputError
from mpdit.scoring.frechet import distance_of_features
from pipelines.recipe import Recipe
from pipelines.scoring import evaluation as scoring
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import evaluate, measure, prepare
from pipelines.scoring.metrics.frechet_by_class import class_distances, frechet_by_class
from pipelines.scoring.metrics.registry import Features, without_details
from pipelines.scoring.reference import extractor_for, real_features, reference
from pipelines.scoring.sample_generator import sample_labels
from pipelines.training.trainer import train
from tests.conftest import SMALL

DIGITS = Recipe().dataset
ASKED = Evaluation(samples=200, steps=1, metrics=["frechet_by_class"])


def features(fake: Tensor, fake_labels: list[int], real: Tensor, real_labels: list[int]) -> Features:
    of = extractor_for(DIGITS, "auto")
    return Features(fake, real, of, {}, torch.tensor(real_labels), fake_labels=torch.tensor(fake_labels))


def rows(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def test_a_class_that_is_moved_has_the_square_of_its_way_as_distance() -> None:
    real, labels = rows(60, 0), [0, 1, 2] * 20
    ways = torch.tensor([0.0, 1.0, 3.0])
    fake = real + torch.nn.functional.pad(ways[labels][:, None], (1, 1))
    found = frechet_by_class(features(fake, labels, real, labels))
    assert class_distances(found) == pytest.approx({0: 0, 1: 1, 2: 9}, abs=1e-5)
    assert found["frechet_by_class"] == pytest.approx(10 / 3, abs=1e-5)
    assert found["frechet_by_class/dimensions"] == 3
    assert found["frechet_by_class/fewest"] == 20


def test_classes_that_change_places_are_found_where_the_distance_over_all_is_zero() -> None:
    real, labels = rows(40, 0) + 10 * torch.tensor([0, 1] * 20)[:, None], [0, 1] * 20
    found = frechet_by_class(features(real, [1, 0] * 20, real, labels))
    assert distance_of_features(real, real) == pytest.approx(0, abs=1e-9)
    assert min(class_distances(found).values()) > 200


def test_classes_with_fewer_than_two_samples_or_images_are_left_out() -> None:
    found = frechet_by_class(features(rows(8, 0), [0, 0, 0, 1, 2, 2, 2, 4], rows(8, 1), [0, 0, 1, 1, 1, 2, 3, 3]))
    assert list(class_distances(found)) == [0]
    assert (found["frechet_by_class/left_out"], found["frechet_by_class/fewest"]) == (4, 2)
    assert frechet_by_class(features(rows(2, 0), [0, 1], rows(2, 1), [0, 1])) == {}


def test_a_sample_is_compared_with_the_images_of_the_class_that_it_was_asked_for() -> None:
    asked = Evaluation(samples=300, metrics=["frechet_by_class"])
    against = reference(DIGITS, extractor_for(DIGITS, "auto"))
    real = real_features(DIGITS, against.extractor, len(DIGITS))
    labels = sample_labels(DIGITS, asked, 0, 300)
    own = [(DIGITS.labels == label).nonzero()[:, 0] for label in range(10)]
    places = [int((labels[:at] == label).sum()) for at, label in enumerate(labels.tolist())]
    fake = real[torch.stack([own[label][place] for label, place in zip(labels.tolist(), places, strict=True)])]
    right = class_distances(measure(fake, against, DIGITS, asked)["more"])
    for label in range(10):
        wanted = distance_of_features(fake[labels == label], real[DIGITS.labels == label])
        assert right[label] == pytest.approx(wanted, rel=1e-6)
    wrong = class_distances(measure(fake.roll(1, 0), against, DIGITS, asked)["more"])
    assert all(wrong[label] > 2 * right[label] for label in range(10))


def test_a_cell_has_it_where_it_is_asked_for_and_is_else_as_it_was(tmp_path: Path) -> None:
    settled = train(Recipe.model_validate({**SMALL, "steps": 2}), tmp_path, lambda line: None, threads=1)
    results: list[dict[str, Any]] = []
    without = ASKED.model_copy(update={"metrics": []})
    evaluate(tmp_path, settled, [Cell(0.0, without), Cell(0.0, ASKED)], results.append)
    off, on = results
    assert off["more"] == {}
    assert [off[name] for name in ("value", "stderr", "left_out")] == [
        on[name] for name in ("value", "stderr", "left_out")
    ]
    assert list(class_distances(on["more"])) == list(range(10))
    assert set(without_details(on["more"])) == {"frechet_by_class"}
    assert on["more"]["frechet_by_class/fewest"] < 2 * on["more"]["frechet_by_class/dimensions"]


def test_data_without_classes_are_refused_before_training(small_recipe: Recipe) -> None:
    prepare(small_recipe, [ASKED])
    one = replace(DIGITS, labels=torch.zeros_like(DIGITS.labels), classes=1)
    with pytest.raises(InputError, match="class by class, and 'digits' has no classes"):
        scoring._check_data(ASKED, one)
