"""Commands that write for a person: a report, a sweep file, a schema; completion in the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from mpdit.data.prepared_images import ImageWriter
from pipelines.recipe import Recipe
from sweeps.spec.reading import SHIPPED, read_spec
from sweeps.spec.schema import sweep_schema
from tests.cli.conftest import Command, Refused


def prepared_images(folder: Path, count: int) -> Path:
    """A prepared set of `count` random pictures of 12 pixels a side in two classes, without features."""
    random = np.random.default_rng(0)
    with ImageWriter(folder, folder.name, 12) as writer:
        for _ in range(count):
            writer.add(random.integers(0, 256, (3, 12, 12), np.uint8))
        writer.finish([number % 2 for number in range(count)], ["a", "b"], "raw", {}, {})
    return folder


CODE = Path(main.__code__.co_filename).parent.parent


def test_the_schema_beside_the_shipped_sweeps_is_the_code_s(mpdit: Command, tmp_path: Path) -> None:
    printed = json.loads(mpdit("schema").stdout)
    assert printed == sweep_schema()
    assert mpdit("schema", "-o", tmp_path / "schema.json").returncode == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == printed
    kept = json.loads((SHIPPED / "sweep.schema.json").read_text())
    assert kept == printed, "mpdit schema > sweeps/sweep.schema.json"


def test_the_schema_knows_the_axes_and_the_sections() -> None:
    known = sweep_schema()
    axes = known["properties"]["axes"]
    assert {"model.modulation", "optimizer.lr", "ema.sigma_rel", "evaluation.guidance"} <= set(axes["properties"])
    assert axes["additionalProperties"] is False
    assert {"name", "axes"} <= set(known["required"])
    assert known["additionalProperties"] is False


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_points_to_the_schema(path: Path) -> None:
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=sweep.schema.json"


def test_a_new_sweep_file_is_valid_and_commented(mpdit: Command, tmp_path: Path) -> None:
    options = ["--name", "small", "--rates", "0.01,0.03", "--seeds", "0,1", "--steps", "90", "--size", "XS"]
    done = mpdit("new", tmp_path / "small.yaml", *options)
    assert done.returncode == 0, done
    spec = read_spec(tmp_path / "small.yaml")
    assert (spec.name, spec.axes["optimizer.lr"], spec.axes["seed"]) == ("small", [0.01, 0.03], [0, 1])
    assert (spec.recipe.steps, spec.recipe.model.size) == (90, "XS")
    assert (tmp_path / "small.yaml").read_text().count("#") > 8
    assert mpdit("plan", tmp_path / "small.yaml", "--json").returncode == 0


@pytest.mark.parametrize(("count", "steps", "batch"), [(9, 300, 8), (1797, 450, None), (4000, 1000, None)])
def test_a_new_sweep_of_ones_own_images_fits_them(
    count: int, steps: int, batch: int | None, mpdit: Command, tmp_path: Path
) -> None:
    prepared_images(tmp_path / "my-set", count)
    done = mpdit("new", "sweeps/mine.yaml", "--data", "my-set", cwd=tmp_path)
    assert done.returncode == 0, done
    text = (tmp_path / "sweeps" / "mine.yaml").read_text()
    assert "data: {name: folder, path: ../my-set, flips: false}" in text  # relative to the file, as sweep files say it
    assert f"{count:,} images of 3×12×12, 2 classes" in text
    spec = read_spec(tmp_path / "sweeps" / "mine.yaml")
    assert (spec.recipe.steps, spec.recipe.batch, spec.recipe.model.patch) == (steps, batch or 128, 2)
    assert spec.evaluation.extractor == "inception"  # no features were trained for it
    rates, default = spec.axes["optimizer.lr"], Recipe().optimizer.lr
    assert len(rates) == 5
    assert min(rates) < default < max(rates)
    made = json.loads(mpdit("plan", "sweeps/mine.yaml", "--json", cwd=tmp_path).stdout)
    assert len(made["trials"]) == 10


@pytest.mark.parametrize(("mirrored", "flips"), [(1.2, True), (1.6, False)])
def test_mirrored_images_are_trained_on_where_they_belong_to_the_set(
    mirrored: float, flips: bool, mpdit: Command, tmp_path: Path
) -> None:
    folder = prepared_images(tmp_path / "1e3", 12)  # a name that YAML reads as a number
    (folder / "features").mkdir()
    (folder / "features" / "1e3.json").write_text(json.dumps({"mirrored": mirrored}))
    assert mpdit("new", "a.yaml", "--data", "1e3", cwd=tmp_path).returncode == 0
    assert read_spec(tmp_path / "a.yaml").recipe.data.flips is flips
    assert mpdit("new", "b.yaml", "--data", folder, "--no-flips" if flips else "--flips", cwd=tmp_path).returncode == 0
    assert read_spec(tmp_path / "b.yaml").recipe.data.flips is not flips


def test_a_new_sweep_of_data_that_is_not_there_is_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert "which one is said by its folder" in refused("new", path, "--data", "folder")
    assert "nearest:  digits" in refused("new", path, "--data", "digit")
    assert "cannot be mirrored" in refused("new", path, "--data", "digits", "--flips")
    (tmp_path / "raw").mkdir()
    assert "mpdit data prepare" in refused("new", path, "--data", tmp_path / "raw")
    for message in (refused("new", path, "--rates", "quick"), refused("new", path, "--widths", "]")):
        assert "is not written" in message
        assert "line" not in message.splitlines()[0]  # of a file that is not there
    assert not path.exists()


def test_every_command_that_writes_takes_an_output(mpdit: Command, refused: Refused, tmp_path: Path) -> None:
    assert mpdit("new", "-o", "a.yaml", cwd=tmp_path).returncode == 0
    assert "two files" in refused("new", "b.yaml", "-o", "c.yaml", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml"]
    for command in (["train"], ["sample"], ["best"], ["report"], ["new"], ["schema"], ["doctor"], ["suggest"]):
        assert "--output" in mpdit(*command, "--help").stdout, command


def test_a_new_sweep_file_takes_no_nonsense_and_overwrites_nothing(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert "modulation" in refused("new", path, "--modulations", "turning")
    assert not path.exists()
    path.write_text("mine")
    assert "is there already" in refused("new", path)
    assert path.read_text() == "mine"


def test_a_report_of_nothing_is_refused(refused: Refused, tmp_path: Path) -> None:
    assert "there is no sweep" in refused("report", "--storage", tmp_path)


def test_the_shell_completes_commands_and_options() -> None:
    def completed(line: str) -> list[str]:
        words = {"_MPDIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        code = "import sys; sys.argv = ['mpdit']; from cli.main import app; app(prog_name='mpdit')"
        environment = os.environ | words | {"PYTHONPATH": str(CODE)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        return done.stdout.split()

    assert "status" in completed("mpdit sta")
    assert "--watch" in completed("mpdit status --w")
