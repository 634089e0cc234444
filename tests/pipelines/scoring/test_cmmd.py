"""CMMD: its closed form, and the features that it needs."""

import math

import pytest
import torch

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.evaluation import prepare
from pipelines.scoring.metrics.kernels.cmmd import cmmd
from pipelines.scoring.metrics.registry import Features
from pipelines.scoring.reference import extractor_for
from tests.conftest import SMALL


def measured(fake: torch.Tensor, real: torch.Tensor) -> float:
    return cmmd(Features(fake, real, extractor_for(Recipe().dataset, "auto")))["cmmd"]


def test_two_points_have_the_closed_form() -> None:
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])  # of length 1, √2 apart
    assert measured(a, b) == pytest.approx(1000 * (2 - 2 * math.exp(-2 / 200)))
    assert measured(a, 7 * a) == pytest.approx(0, abs=1e-9)


def test_the_same_distribution_is_near_and_another_far() -> None:
    drawn = torch.Generator().manual_seed(0)
    one, same, other = (torch.randn(500, 8, generator=drawn) + shift for shift in (0.0, 0.0, 1.0))
    assert measured(one, one) == pytest.approx(0, abs=1e-9)
    assert 0 < measured(one, same) < measured(one, other) / 20


def test_it_is_refused_in_features_that_are_not_clip_s() -> None:
    with pytest.raises(InputError, match=r"CMMD is measured in the features of 'clip'[\s\S]*extractor: clip"):
        prepare(Recipe.model_validate(SMALL), [Evaluation(metrics=["cmmd"])])
