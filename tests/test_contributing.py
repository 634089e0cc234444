"""What CONTRIBUTING.md says of a new data set: a `Dataset`, its kind, features; then it is trained on and scored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mpdit.data.dataset import Dataset
from mpdit.data.registry import DATASETS, load_dataset
from mpdit.errors import InputError
from mpdit.scoring import small_classifier
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import evaluate, prepare
from pipelines.scoring.train_classifier import train_extractor
from pipelines.training.trainer import train
from tests.conftest import SMALL


def stripes() -> Dataset:
    """100 grey pictures of stripes that lie or stand, with some noise."""
    labels = torch.arange(100) % 2
    lying = (torch.arange(8) % 2 * 2.0 - 1).reshape(1, 8, 1).expand(1, 8, 8)
    noise = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.where(labels.reshape(-1, 1, 1, 1) == 0, lying, lying.mT) * 0.8 + 0.05 * noise
    return Dataset("stripes", labels, 2, 1, 8, 0.8, "made here", 256, lambda index: (images[index],))


@dataclass(frozen=True)
class Stripes:
    """As a file of mpdit/data/ would register it."""

    name: ClassVar[str] = "stripes"
    doc: ClassVar[str] = "stripes that lie or stand"

    def load(self) -> Dataset:
        """All of them."""
        return stripes()


def test_a_data_set_that_is_added_can_be_trained_on_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS._kinds, "stripes", Stripes)
    for module in ("mpdit.scoring.small_classifier", "pipelines.scoring.train_classifier"):
        monkeypatch.setattr(f"{module}.WEIGHTS", tmp_path / "weights")
    evaluation, results = Evaluation(samples=20, steps=1), list[dict[str, Any]]()
    recipe = Recipe.model_validate({**SMALL, "steps": 2, "data": {"name": "stripes"}})
    with pytest.raises(InputError, match=r"python -m pipelines\.scoring\.train_classifier NAME"):
        prepare(recipe, [evaluation])
    train_extractor(load_dataset("stripes"), small_classifier.WEIGHTS, steps=2)
    settled = train(recipe, tmp_path / "run", lambda line: None, threads=1)
    evaluate(tmp_path / "run", settled, [Cell(0.0, evaluation)], results.append)
    assert results[0]["metric"] == "fd_stripes_20"
    assert results[0]["value"] > 0
