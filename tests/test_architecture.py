"""What holds the architecture: layers, pins, file sizes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("mpdit", "pipelines", "sweeps", "cli")
SOURCES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def test_a_floor_imports_only_from_itself_and_those_below() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_the_science_stands_alone() -> None:
    code = "import sys, mpdit; [getattr(mpdit, name) for name in mpdit.__all__]\n"
    code += "import mpdit.training.step, mpdit.training.magnitude\n"
    code += "print(sorted({'ray', 'mlflow', 'optuna', 'typer', 'pydantic', 'accelerate'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_fits_in_one_reading(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_named_for_what_it_holds_and_says_so(path: Path) -> None:
    assert path.stem not in ("utils", "helpers", "common", "manager")
    assert path.name == "__init__.py" or path.read_text().startswith('"""')


def test_every_dependency_is_pinned_without_an_address() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    lines = [line for line in pins.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    project = (ROOT / "pyproject.toml").read_text()
    asked = re.findall(r'^    "([A-Za-z0-9-]+)[\[<>=~!"]', project, flags=re.MULTILINE)
    assert {name.lower() for name in asked} <= pinned
