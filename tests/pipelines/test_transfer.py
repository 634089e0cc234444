import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpdit
from mpdit.data.prepared_images import ImageWriter
from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.training.trainer import train
from pipelines.training.training_folder import is_trained, read_recipe
from pipelines.transfer import export_transfer, transfer

RESULT = {"params": {}, "metric": "fd_digits_2k", "value": 1.5, "stderr": 0.1, "noise_floor": 0.2}
SOURCE = {"sweep": "small", "trial": "abc"}


def source(parametrization: str = "mup", **fields: Any) -> Recipe:
    optimizer = {"lr": 0.04, "parametrization": parametrization, **fields.pop("optimizer", {})}
    return Recipe.model_validate({"optimizer": optimizer, "ema": {"sigma_rel": 0.05}, **fields})


def test_everything_but_size_and_patch_is_carried_over() -> None:
    moved = transfer(source(seed=3, steps=70), "B", 4)
    kept, there = moved.source.model_dump(), moved.target.model_dump()
    assert there["model"] | {"size": "nano", "patch": 2} == kept["model"]
    assert {**there, "model": None} == {**kept, "model": None}
    assert moved.name == "B/4"
    assert moved.hidden_lr == {"nano/2": 0.04, "B/4": pytest.approx(0.04 * math.sqrt(64 / 768), rel=1e-3)}


def test_the_hidden_rate_of_plain_maps_goes_with_the_width() -> None:
    moved = transfer(source(model={"design": "A"}), "XS", None)
    assert moved.hidden_lr == {"nano/2": 0.04, "XS/2": 0.01}


def test_what_no_rule_covers_is_named() -> None:
    depth, heads, patch = transfer(source(), "B", 4).warnings
    assert "depth: from 4 to 12" in depth
    assert "attention heads: from 16 to 64" in heads
    assert "patch: from 2 to 4" in patch
    assert transfer(source(model={"width": 128}), "nano", None).warnings == [
        "the target is narrower than the source: width 128 to 64"
    ]


@pytest.mark.parametrize("size", ["XS", "S", "B", "L", "XL"])
def test_from_nano_every_size_can_be_reached(size: str) -> None:
    assert transfer(source(), size, None).target.model.size == size


@pytest.mark.parametrize(
    ("recipe", "size", "patch", "says"),
    [
        (source("sp"), "B", None, "under sp the best learning rate moves with the width"),
        (source(), "D", None, "XS, S, B, L, XL"),
        (source(), "B", 3, "patch 3 does not divide"),
        (source(optimizer={"base_width": 48}), "S", None, "base width 48 is not a whole number of S's attention heads"),
    ],
)
def test_what_does_not_transfer_is_refused(recipe: Recipe, size: str, patch: int | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        transfer(recipe, size, patch)


def test_another_patch_alone_needs_no_rule_for_the_width() -> None:
    assert transfer(source("sp"), None, 4).target.model.patch == 4


def test_a_transferred_bundle_has_no_weights_says_so_and_trains(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "model.safetensors").touch()  # an earlier bundle's
    moved = transfer(source(model={"width": 32}, steps=2, batch=8, runtime={"device": "cpu"}), "nano", 4)
    export_transfer(moved, RESULT, bundle, SOURCE)
    assert sorted(path.name for path in bundle.iterdir()) == ["README.md", "provenance.json", "recipe.yaml"]
    with pytest.raises(InputError, match="no weights yet"):
        mpdit.load(bundle)
    card = (bundle / "README.md").read_text()
    for part in (
        "No weights yet",
        "nano(32)/2",
        "nano/4",
        "patch: from 2 to 4",
        "0.04",
        "µP at base width 64",
        "1.500",
    ):
        assert part in card
    found = json.loads((bundle / "provenance.json").read_text())
    assert found["transfer"]["warnings"] == ["no rule covers patch: from 2 to 4 pixels"]
    train(read_recipe(bundle), tmp_path / "run", lambda _line: None)
    assert is_trained(tmp_path / "run")
    assert mpdit.load(tmp_path / "run")[0].network.architecture.base_width == 64


def test_a_recipe_of_ones_own_images_is_carried_over(tmp_path: Path) -> None:
    with ImageWriter(tmp_path / "set", "set", 8) as writer:
        for _ in range(128):
            writer.add(np.full((3, 8, 8), 7, np.uint8))
        writer.finish([0] * 128, ["all"], "raw", {}, {})
    moved = transfer(source(data={"name": "folder", "path": str(tmp_path / "set")}), "XS", None)
    export_transfer(moved, RESULT, tmp_path / "bundle", SOURCE)
    assert "No weights yet" in (tmp_path / "bundle" / "README.md").read_text()
