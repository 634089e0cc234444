"""Commands that write for a person: a report, a sweep file, a schema; completion in the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from sweeps.spec.reading import SHIPPED, read_spec
from sweeps.spec.schema import sweep_schema
from tests.cli.conftest import Command, Refused

CODE = Path(main.__code__.co_filename).parent.parent


def test_the_schema_beside_the_shipped_sweeps_is_the_code_s(mpdit: Command) -> None:
    printed = json.loads(mpdit("schema").stdout)
    assert printed == sweep_schema()
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
