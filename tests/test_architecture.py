"""What holds the architecture: layers, pins, file sizes."""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpdit
from mpdit.errors import InputError
from mpdit.registry import Registry
from sweeps.kinds import REGISTRIES, page

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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_fits_on_a_screen(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []


def test_a_folder_is_overseen_at_a_glance() -> None:
    modules = Counter(path.parent for path in SOURCES)
    assert {folder: count for folder, count in modules.items() if count > 12} == {}


def test_the_page_of_all_kinds_is_the_registries_own() -> None:
    assert (ROOT / "docs" / "kinds.md").read_text() == page(), "python -m sweeps.kinds > docs/kinds.md"


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=lambda registry: registry.what)
def test_every_kind_has_a_name_and_a_line_of_documentation(registry: Registry[Any]) -> None:
    assert len(registry.names()) > 0
    for kind in registry:
        assert kind.doc
        assert registry[kind.name] is kind
    with pytest.raises(InputError, match=f"no {registry.what} 'nothing of the sort'"):
        registry["nothing of the sort"]


def test_no_registry_is_left_out() -> None:
    made = [m for path in SOURCES for m in re.findall(r"^([A-Z_]+): Registry\[", path.read_text(), flags=re.MULTILINE)]
    assert len(made) == len(REGISTRIES)


def test_the_functions_that_others_call_keep_their_names_and_arguments() -> None:
    arguments = {name: list(inspect.signature(getattr(mpdit, name)).parameters) for name in mpdit.__all__}
    assert arguments == {
        "frechet_distance": ["mean_a", "cov_a", "mean_b", "cov_b"],
        "load": ["bundle_or_run", "ema"],
        "posthoc_coefficients": ["steps", "widths", "target_step", "target_width"],
        "power_function_beta": ["width", "step", "batch"],
    }


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_there_is(path: Path) -> None:
    """Nothing runs the benchmarks in CI: a module that has moved would be found by the next reader."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LAYERS:
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{module.__name__}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] not in LAYERS or importlib.util.find_spec(alias.name)
