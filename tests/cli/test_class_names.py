"""Classes by the names that they have in the set, in commands, pictures, cards and reports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.data.prepared_images import ImageWriter
from mpdit.data.registry import open_dataset
from pipelines.export import export
from pipelines.recipe import Recipe
from pipelines.scoring.pictures import GAP, NAME_SIZE, write_grid
from pipelines.training.trainer import train
from tests.cli.conftest import Command, Refused
from tests.conftest import SMALL

RESULT = {
    "params": {"ema.sigma_rel": 0, "evaluation.samples": 10, "evaluation.sampler": "ddim", "evaluation.steps": 1}
    | {"evaluation.guidance": 1.0, "evaluation.seed": 0},
    "metric": "fd_pets_10",
    "provenance": {"nfe": 1, "extractor": "pets", "extractor_weights": "", "reference_count": 16, "reference": ""},
    **dict.fromkeys(("value", "stderr", "noise_floor", "magnitude_drift"), 0.5),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training of two steps on 16 pictures of `10`, `2` and `a cat`, in that order."""
    with ImageWriter(tmp_path / "pets", "pets", 8) as writer:
        for number in range(16):
            writer.add(torch.full((3, 8, 8), number * 10, dtype=torch.uint8).numpy())
        writer.finish([number % 3 for number in range(16)], ["10", "2", "a cat"], "raw", {}, {})
    data = {"name": "folder", "path": str(tmp_path / "pets")}
    train(Recipe.model_validate({**SMALL, "steps": 2, "data": data}), tmp_path / "run", lambda _line: None)
    return tmp_path / "run"


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_samples_of_classes_by_name(run: Path, mpdit: Command, refused: Refused, tmp_path: Path) -> None:
    command = ("sample", "run", "--rows", "1", "--ema", "0", "--classes")
    assert mpdit(*command, "a cat, 10", "-o", "names.png", cwd=tmp_path).returncode == 0
    assert mpdit(*command, "a cat,0", "-o", "numbers.png", cwd=tmp_path).returncode == 0
    assert (tmp_path / "names.png").read_bytes() == (tmp_path / "numbers.png").read_bytes()
    assert size(tmp_path / "names.png") == (2 * 64 + GAP, 64 + NAME_SIZE + GAP)
    assert mpdit(*command, "2", "-o", "name.png", cwd=tmp_path).returncode == 0  # the class of that name, not number 2
    assert mpdit(*command, "1", "-o", "number.png", cwd=tmp_path).returncode == 0
    assert (tmp_path / "name.png").read_bytes() == (tmp_path / "number.png").read_bytes()
    message = refused(*command, "a cta", cwd=tmp_path)
    assert "nearest:  a cat" in message
    assert "10, 2, a cat" in message
    assert "no class '3'" in refused(*command, "3", cwd=tmp_path)


def test_a_bundle_knows_the_names_where_the_data_is_not(
    run: Path, mpdit: Command, refused: Refused, tmp_path: Path
) -> None:
    bundle = export(run, RESULT, tmp_path / "bundle", {"sweep": "made", "trial": "abc"})
    assert "trained on `pets`" in (bundle / "README.md").read_text()
    (tmp_path / "pets").rename(tmp_path / "away")
    assert mpdit("sample", bundle, "--classes", "a cat", "-o", "a.png", cwd=tmp_path).returncode == 0
    kept = json.loads((bundle / "provenance.json").read_text())
    del kept["class_names"]
    (bundle / "provenance.json").write_text(json.dumps(kept))  # as an earlier release wrote it
    open_dataset.cache_clear()
    assert "0 to 2" in refused("sample", bundle, "--classes", "a cat", cwd=tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_name_has_the_room_of_its_column(channels: int, tmp_path: Path) -> None:
    images = torch.full((2, channels, 64, 64), 255, dtype=torch.uint8)
    write_grid(tmp_path / "long.png", images, 2, ["", "n" * 200])
    write_grid(tmp_path / "plain.png", images, 2)
    with Image.open(tmp_path / "long.png") as named, Image.open(tmp_path / "plain.png") as plain:
        grey = torch.from_numpy(np.array(named.convert("L")))
        assert (grey[: NAME_SIZE + GAP, : 64 + GAP] == 255).all()  # not above its neighbour
        assert (grey[: NAME_SIZE + GAP, 64 + GAP :] < 128).any()
        assert named.crop((0, NAME_SIZE + GAP, *named.size)).tobytes() == plain.tobytes()
