"""Every command and snippet in the README and the docs does what it says there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.spec import read_spec
from tests.slow.conftest import CODE, mpdit
from tests.slow.mlflow_pages import served

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PAGES = [CODE / "README.md", *sorted((CODE / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```$"
    return [block for page in PAGES for block in re.findall(pattern, page.read_text(), flags=re.MULTILINE | re.DOTALL)]


def commands() -> list[list[str]]:
    lines = [line.split(" #")[0].split() for block in blocks("") for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "mpdit"]


def test_every_command_runs(whole_sweep: Path) -> None:
    done = []
    for words in commands():
        if words in done:
            continue
        done.append(words)
        if words[0] == "ui":
            with served(whole_sweep / "runs"):
                continue
        mpdit(*words, cwd=whole_sweep)
    named = {words[0] for words in done}
    assert named >= {"plan", "sweep", "status", "rank", "best", "train", "evaluate", "sample", "ui"}


def test_every_snippet_runs(whole_sweep: Path) -> None:
    mpdit("best", "--export", cwd=whole_sweep)
    found = blocks("python")
    assert found
    for snippet in found:
        subprocess.run([sys.executable, "-c", snippet], cwd=whole_sweep, check=True)


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
