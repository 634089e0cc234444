"""Every command and snippet in the README and the docs does what it says there."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sweeps.spec.reading import read_spec
from tests.bucket_server import Server
from tests.pipelines.data.test_encode import tiny_vae
from tests.slow.conftest import CODE, PATIENCE, mpdit, start
from tests.slow.mlflow_pages import served

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WHOLE = pytest.mark.xdist_group("whole")
SWEEP = """\
name: afar
recipe: {{steps: 40, batch: 16, runtime: {{device: cpu}}}}
axes: {{ema.sigma_rel: [0.05, 0.1]}}
evaluation: {{samples: 200, steps: 2}}
tracking: {{uri: 'sqlite:///{}/afar.db'}}
"""
SHORTER = {  # of the shipped sweep, `whole_sweep` has written a shorter one
    ("sweep", "--data"): ("--set", "recipe.steps=60", "--set", "evaluation.samples=200"),
    ("sweep", "conditioning", "--until"): ("--hours", "0.001"),  # test_advice follows it
}
PAGES = [CODE / "README.md", CODE / "CONTRIBUTING.md", *sorted((CODE / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; each fence that opens is matched with the one that closes it."""
    pages = "\n".join(page.read_text() for page in PAGES)
    found = re.findall(r"^```(\w*)\n(.*?)^```$", pages, flags=re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def commands() -> list[list[str]]:
    """The commands of all pages; one that is indented is what another has printed (test_advice pastes those)."""
    lines = [line.split(" #")[0].split() for block in blocks("") for line in block.splitlines() if line[:1] != " "]
    return [words[1:] for words in lines if words and words[0] == "mpdit"]


def heads(words: int) -> list[list[str]]:
    """The first words of each command."""
    return [command[:words] for command in commands()]


def assert_complete(words: list[str]) -> None:
    """The shell to complete for is the one that the command is given in."""
    in_bash = ["bash", "-c", '"$0" "$@"; exit']  # with a last word of its own, it does not make way for the command
    process = start(*words, inside=in_bash)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "complete" in out


def assert_served_until_interrupted(words: list[str], folder: Path) -> None:
    process = start(*words, cwd=folder)
    assert process.stderr is not None
    address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
    assert address
    with urllib.request.urlopen(address[0]) as answer:
        assert b'<section id="ranking">' in answer.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130


def make_what_the_docs_assume(folder: Path, server: Server) -> None:
    """`photos`, 24 pictures in three classes; `vae`, a tiny one; `s3://bucket`; sweep files."""
    server.make("bucket")
    (folder / "sweep.yaml").write_text(SWEEP.format(folder))
    for text in blocks("yaml"):
        name = yaml.safe_load(text).get("name")
        if any(f"{name}.yaml" in words for words in commands()) and ["new", f"{name}.yaml"] not in heads(2):
            (folder / f"{name}.yaml").write_text(text)
    random = np.random.default_rng(0)
    for number in range(24):
        place = folder / "photos" / ("birds", "cats", "dogs")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (80, 96, 3)).astype(np.uint8)).save(place / f"{number}.jpg")
    tiny_vae(folder / "vae")


@WHOLE
def test_every_command_runs(whole_sweep: Path, s3_server: Server, bucket_url: str) -> None:
    make_what_the_docs_assume(whole_sweep, s3_server)
    done = []
    for words in commands():
        if words in done:
            continue
        done.append(words)
        if words[0] == "ui":
            with served(whole_sweep / "runs"):
                continue
        if words[0] == "watch":
            assert_served_until_interrupted(words, whole_sweep)
            continue
        if words[0] == "--show-completion":
            assert_complete(words)
            continue
        more = [settings for begin, settings in SHORTER.items() if tuple(words[: len(begin)]) == begin]
        mpdit(*words, *sum(more, ()), cwd=whole_sweep)
    named = {words[0] for words in done}
    assert named >= {
        "plan",
        "sweep",
        "status",
        "rank",
        "best",
        "train",
        "evaluate",
        "sample",
        "ui",
        "data",
        "doctor",
        "report",
        "new",
        "schema",
        "suggest",
        "watch",
    }


@WHOLE
def test_every_snippet_runs(whole_sweep: Path) -> None:
    mpdit("best", "conditioning", "--export", cwd=whole_sweep)
    found = blocks("python")
    assert found
    for snippet in found:
        subprocess.run([sys.executable, "-c", snippet], cwd=whole_sweep, check=True)


def test_the_notebook_runs(tmp_path: Path) -> None:
    """Its code cells in order, in one fresh process; Jupyter itself is not needed."""
    cells = json.loads((CODE / "docs" / "from-python.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    environment = os.environ | {"PYTHONPATH": str(CODE), "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fd_digits_500") == 4


def test_every_sweep_file_is_valid(tmp_path: Path) -> None:
    found = blocks("yaml")
    assert found
    for text in found:
        (tmp_path / "sweep.yaml").write_text(text)
        read_spec(tmp_path / "sweep.yaml")


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
