"""`mpdit data` as a person meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweeps.spec.reading import read_spec
from tests.cli.conftest import Command, Refused


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """12 pictures in two classes, and a file that is none."""
    random = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "raw" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "raw" / "cats" / "readme.txt").write_text("no image")
    return tmp_path / "raw"


def test_list_names_every_data_set(mpdit: Command) -> None:
    text = mpdit("data", "list").stdout
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["digits", "folder", "latents", "shapes"]
    rows = json.loads(mpdit("data", "list", "--json").stdout)
    assert rows[3]["settings"] == ["holdout", "resolution", "count"]


def test_info_says_what_is_in_a_set(mpdit: Command, refused: Refused, tmp_path: Path) -> None:
    text = mpdit("data", "info", "digits", "-o", "sheet.png", cwd=tmp_path).stdout
    for part in ("1,797 of 1×8×8", "-0.390 ± 0.752", "sha256:314b97e8b73b", "contact sheet  sheet.png"):
        assert part in text
    assert text.splitlines()[-10].split() == ["0", "178"]
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (10 * 72 - 8, 8 * 72 - 8 + 20)  # 20: the classes' names
    facts = json.loads(mpdit("data", "info", "shapes", "--resolution", "16", "--json", cwd=tmp_path).stdout)
    assert facts["shape"] == [3, 16, 16]
    assert facts["counts"]["star"] == 5000
    assert "nearest:  digits" in refused("data", "info", "digit")
    assert "has no resolution" in refused("data", "info", "digits", "--resolution", "16")
    assert "mpdit data prepare" in refused("data", "info", tmp_path)


def test_a_folder_is_prepared_and_told_about(raw: Path, tmp_path: Path, mpdit: Command, refused: Refused) -> None:
    arguments = ("data", "prepare", raw, "-o", tmp_path / "set", "--resolution", "8", "--no-features")
    message = refused(*arguments)
    assert "cats/readme.txt is not a PNG, JPEG or WebP file" in message
    assert "--skip-bad" in message
    done = mpdit(*arguments, "--skip-bad")
    assert done.returncode == 0, done.stderr
    for part in ("12 images of 2 classes", "1 left out", "readme.txt is not", "  data:\n    name: folder\n"):
        assert part in done.stderr
    facts = json.loads(mpdit("data", "info", tmp_path / "set", "--json", cwd=tmp_path).stdout)
    assert facts["counts"] == {"cats": 6, "dogs": 6}
    assert facts["skipped"] == 1
    block = done.stderr.split("use it:\n")[1].split("or: mpdit new")[0]  # is pasted below `recipe:`
    (tmp_path / "pasted.yaml").write_text(f"name: x\nrecipe:\n  batch: 4\n{block}axes:\n  seed: [0]\n")
    assert read_spec(tmp_path / "pasted.yaml").recipe.data.flips is False
    assert mpdit(*arguments).returncode == 0  # it is made already
    assert "is there already" in refused(*arguments[:-2], "16")


def test_what_cannot_be_made_is_refused(raw: Path, tmp_path: Path, refused: Refused) -> None:
    prepare = ("data", "prepare", raw, "--resolution", "8", "-o")
    assert "cannot be named 'digits'" in refused(*prepare, tmp_path / "digits")
    assert "cannot be named 'my set'" in refused(*prepare, tmp_path / "my set")
    assert "Missing option" in refused("data", "prepare", raw, "-o", tmp_path / "set")
    encode = ("data", "encode", raw, "-o", tmp_path / "latents", "--vae", tmp_path / "vae")
    assert "cannot be loaded" in refused(*encode)
    assert "bf16, fp32" in refused(*encode, "--dtype", "int8")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ("  data: {name: folder, path: nowhere}", 3),
        ("  data: {name: folder, path: raw}", 3),
        ("  batch: 20", 4),
        ("  model: {patch: 3}", 5),
        ("  data.path: [set, nowhere]", 7),
        ("  model.patch: [2, 3]", 8),
        ("  batch: [4, 20]", 9),
        ("  ema.sigma_rel: [0.05, 0.001]", 10),
    ],
)
def test_what_does_not_fit_the_data_is_told_with_its_line(
    changes: str, line: int, raw: Path, tmp_path: Path, mpdit: Command, refused: Refused
) -> None:
    prepare = ("data", "prepare", raw, "-o", tmp_path / "set", "--resolution", "8", "--skip-bad", "--no-features")
    assert mpdit(*prepare).returncode == 0
    lines = ["name: x", "recipe:", "  data: {name: folder, path: set}", "  batch: 4", "  model: {patch: 2}"]
    lines += ["axes:", "  data.path: [set]", "  model.patch: [2]", "  batch: [4]", "  ema.sigma_rel: [0.05]"]
    if line < 6:  # the recipe's own value counts where no axis has others
        lines = lines[:6] + lines[9:]
    (tmp_path / "x.yaml").write_text("\n".join(changes if at == line - 1 else text for at, text in enumerate(lines)))
    message = refused("plan", tmp_path / "x.yaml")
    assert message.startswith(f"{tmp_path / 'x.yaml'}, line {line}: "), message
    if "path: raw" in changes:
        assert f"mpdit data prepare {raw} -o FOLDER --resolution 16" in message  # the size of its images
    if line == 3:
        (tmp_path / "recipe.yaml").write_text("steps: 2\n" + changes.strip() + "\n")
        message = refused("train", tmp_path / "recipe.yaml")
        assert message.startswith(f"{tmp_path / 'recipe.yaml'}, line 2: there is no prepared set"), message


def test_what_cannot_be_scored_is_not_trained(raw: Path, tmp_path: Path, mpdit: Command, refused: Refused) -> None:
    prepare = ("data", "prepare", raw, "-o", tmp_path / "set", "--resolution", "8", "--skip-bad", "--no-features")
    assert mpdit(*prepare).returncode == 0
    (tmp_path / "recipe.yaml").write_text("data: {name: folder, path: set}\nsteps: 2\nbatch: 4\n")
    message = refused("train", tmp_path / "recipe.yaml", "--output", tmp_path / "run")
    assert "no feature extractor 'set'" in message
    assert not (tmp_path / "run").exists()
