"""What tells learning by heart from learning: closed cases, and that it is measured where images are held out."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor

from mpdit.errors import InputError
from pipelines.identity import trial_id
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import evaluate, prepare
from pipelines.scoring.metrics.held_out.frechet_held_out import equal_parts, held_out_distances
from pipelines.scoring.metrics.held_out.nearer_to_training import nearer_to_training
from pipelines.scoring.metrics.registry import Features
from pipelines.scoring.reference import extractor_for
from pipelines.training.trainer import train
from tests.conftest import SMALL

HELD_OUT = ["frechet_gap", "frechet_held_out", "nearer_to_training"]


def features(fake: Tensor, real: Tensor, held_out: Tensor, labels: Tensor | None = None) -> Features:
    return Features(fake, real, extractor_for(Recipe().dataset, "auto"), {}, labels, held_out)


def drawn(count: int, seed: int, dimensions: int = 4) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def test_copies_of_training_images_are_found() -> None:
    real, held_out = drawn(900, 0), drawn(100, 1)
    copies = features(real[torch.arange(2000) % 900], real, held_out)
    assert nearer_to_training(copies)["nearer_to_training"] == 1
    copied = held_out_distances(features(real[:100].repeat(20, 1), real[:100], held_out))
    assert copied["frechet_gap"] > 0
    assert copied["frechet_seen"] == pytest.approx(0, abs=1e-3)


def test_unseen_images_are_no_nearer_to_training_images_than_held_out_ones() -> None:
    found = [
        {**nearer_to_training(one), **held_out_distances(one)}
        for one in (features(drawn(1000, 3 * at), drawn(900, 3 * at + 1), drawn(100, 3 * at + 2)) for at in range(40))
    ]
    shares, gaps = ([one[name] for one in found] for name in ("nearer_to_training", "frechet_gap"))
    assert mean(shares) == pytest.approx(0.5, abs=0.02)
    assert abs(mean(gaps)) < 3 * mean(one["frechet_gap_std"] for one in found) / 40**0.5
    within = mean(abs(one["frechet_gap"]) < 2.4 * one["frechet_gap_std"] for one in found)  # t of 7: 95 % at 2.36
    assert within >= 0.85


def test_a_training_image_many_times_over_is_a_gap_where_the_distance_alone_would_please() -> None:
    real, held_out = drawn(200, 0), drawn(200, 1)
    by_heart, fresh = (
        held_out_distances(features(fake, real, held_out)) for fake in (real.repeat(10, 1), drawn(2000, 2))
    )
    assert by_heart["frechet_seen"] < fresh["frechet_seen"]
    assert by_heart["frechet_gap"] > 2 * abs(fresh["frechet_gap"])


def test_samples_far_from_everything_are_nearer_to_nothing() -> None:
    assert nearer_to_training(features(drawn(100, 0) + 50, drawn(90, 1), drawn(10, 2)))["nearer_to_training"] == 0


def test_the_parts_are_disjoint_of_one_size_and_hold_each_class_in_proportion() -> None:
    labels = torch.arange(905) % 5
    real = torch.stack([torch.arange(905.0), labels.float()], dim=1)
    held_out, parts = equal_parts(features(real, real, real[:100], labels))
    assert [len(part) for part in parts] == [100] * 8
    assert len(held_out) == 100
    assert len(torch.cat(parts)[:, 0].unique()) == 800
    for part in parts:
        assert part[:, 1].long().bincount().tolist() == [20] * 5


def test_more_held_out_than_trained_on_is_measured_too() -> None:
    found = held_out_distances(features(drawn(100, 0), drawn(30, 1), drawn(70, 2)))
    assert set(found) == {"frechet_held_out", "frechet_seen", "frechet_gap"}  # one part has no spread


def test_a_cell_of_data_with_a_holdout_is_measured_without_being_asked(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({**SMALL, "steps": 2, "data": {"holdout": 0.1}})
    settled = train(recipe, tmp_path, lambda line: None, threads=1)
    results: list[dict[str, Any]] = []
    evaluate(tmp_path, settled, [Cell(0.0, Evaluation(samples=40, steps=1))], results.append)
    assert set(HELD_OUT) <= set(results[0]["more"])
    assert results[0]["provenance"]["reference_count"] == 1617


def test_without_a_holdout_there_is_nothing_to_compare_with(small_recipe: Recipe) -> None:
    for name in HELD_OUT:
        with pytest.raises(InputError, match=f"{name} compares with images[\\s\\S]*data: {{holdout: 0.1}}"):
            prepare(small_recipe, [Evaluation(metrics=[name])])
    prepare(Recipe.model_validate({**SMALL, "data": {"holdout": 0.1}}), [Evaluation(metrics=HELD_OUT)])


def test_a_holdout_is_part_of_the_training_s_name_only_where_it_is_set() -> None:
    names = [trial_id(Recipe.model_validate({"data": {"holdout": held_out}})) for held_out in (0.0, 0, 0.1, 0.2)]
    assert names[0] == names[1] == trial_id(Recipe())
    assert len(set(names)) == 3
