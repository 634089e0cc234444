"""A plug-in of a third party, installed beside mpdit: its kinds are swept, ranked and exported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slow.conftest import CODE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SWEEP = """\
name: plugged
recipe:
  model: {width: 16}
  steps: 4
  batch: 8
  runtime: {device: cpu, threads: 1}
axes:
  model.attention: [softmax, example.mean]
  model.attention.own: {values: [0.25, 0.75], when: {model.attention: example.mean}}
  evaluation.sampler.temperature: [0.9, 1.0]
evaluation: {samples: 20, steps: 1, sampler: example.tempered}
objective: {metric: example.spread}
constraints: ["example.spread >= 0"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the plug-in in it, as pip installs it."""
    folder, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(CODE / "tests" / "example_plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder), str(source)], check=True, cwd=folder)
    return folder


def mpdit(*arguments: str | Path, cwd: Path, site: Path | None, expect: int = 0) -> str:
    paths = os.pathsep.join(str(path) for path in (CODE, site) if path)
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + (done.stderr if expect else "")


def test_a_plugin_s_kinds_are_swept_ranked_and_exported(site: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    mpdit("sweep", "sweep.yaml", "--max-concurrent", "1", cwd=tmp_path, site=site)
    rows = json.loads(mpdit("rank", "--json", cwd=tmp_path, site=site))
    assert len(rows) == 6
    assert {row["status"] for row in rows} == {"completed"}
    assert {row["params"]["model.attention"] for row in rows} == {"softmax", "example.mean"}
    assert {row["params"]["evaluation.sampler.temperature"] for row in rows} == {0.9, 1.0}
    values = [row["value"] for row in rows]
    assert values == sorted(values, reverse=True), "the metric says that larger is better"
    assert len({row["trial"] for row in rows}) == 3

    mpdit("best", "--export", "--output", "bundle", cwd=tmp_path, site=site)
    provenance = json.loads((tmp_path / "bundle" / "provenance.json").read_text())
    assert provenance["result"]["provenance"]["plugins"] == {"mpdit-example": "1.2.3"}
    mpdit("evaluate", "bundle", "--samples", "20", cwd=tmp_path, site=site)

    told = mpdit("plan", "sweep.yaml", cwd=tmp_path, site=None, expect=2)
    assert "the plug-in 'example' is not installed" in told
    assert "pip install" in told
    told = mpdit("rank", cwd=tmp_path, site=None, expect=2)
    assert "the plug-in 'example' is not installed" in told
    told = mpdit("plan", "sweep.yaml", "--set", "evaluation.sampler=example.temperd", cwd=tmp_path, site=site, expect=2)
    assert "example.tempered" in told


def test_another_version_of_a_plugin_is_another_training(site: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    first = {t["id"] for t in json.loads(mpdit("plan", "sweep.yaml", "--json", cwd=tmp_path, site=site))["trials"]}
    other = tmp_path / "site"
    shutil.copytree(site, other)
    (metadata,) = other.glob("mpdit_example-*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 1.2.3", "Version: 1.3.0"))
    second = {t["id"] for t in json.loads(mpdit("plan", "sweep.yaml", "--json", cwd=tmp_path, site=other))["trials"]}
    assert len(first & second) == 1, "softmax is ours"
    assert len(first | second) == 5
