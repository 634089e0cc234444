"""mpdit from a wheel, as `pip install .` and pipx install it: a fresh environment, outside the project's folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.slow.conftest import CODE, PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PARTS = ("mpdit", "pipelines", "sweeps", "cli", "pyproject.toml", "README.md", "LICENSE")
SWEEP = ("--axis", "optimizer.lr=0.1", "--axis", "ema.sigma_rel=0", "--steps", "10", "--set", "recipe.batch=16")
SMALL = ("--set", "evaluation.samples=50", "--set", "evaluation.steps=2", "--set", "recipe.runtime.threads=1")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `mpdit` of a fresh environment with nothing but the wheel; what it depends on is that of these tests."""
    source, wheels, fresh = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "fresh"))
    for part in PARTS:
        copy = shutil.copytree if (CODE / part).is_dir() else shutil.copy
        copy(CODE / part, source / part)
    offline = ["--quiet", "--no-index", "--no-deps"]
    command = [sys.executable, "-m", "pip", "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*command, str(source)], check=True, cwd=wheels)
    venv.create(fresh, with_pip=True)
    python = fresh / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(fresh)})
    # a folder named in a .pth file is searched, and its own .pth files (of the editable mpdit) are not read
    (Path(site) / "present.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", *offline, *wheels.glob("mpdit-*.whl")], check=True, cwd=wheels)
    return fresh / "bin" / "mpdit"


def test_a_wheel_in_a_fresh_environment_sweeps_ranks_and_reports(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MPDIT_STORAGE")}

    def mpdit(*words: str) -> str:
        done = subprocess.run(
            [installed, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import mpdit; print(mpdit.__file__)"
    used = subprocess.check_output(
        [installed.with_name("python"), "-c", where], cwd=tmp_path, env=environment, text=True
    )
    assert Path(used).is_relative_to(installed.parents[1])  # and not the folder of the project
    assert "trials" in mpdit("plan", "conditioning")  # a sweep file that comes with it
    mpdit("sweep", *SWEEP, *SMALL)
    assert json.loads(mpdit("rank", "--json"))[0]["status"] == "completed"
    mpdit("report", "-o", "report.html")
    mpdit("best", "--export")
    mpdit("sample", "bundles/quick", "--rows", "1", "--classes", "3")
    assert (tmp_path / "grid.png").exists()
