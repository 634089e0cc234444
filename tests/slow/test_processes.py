"""One training shared by several processes is the training of one; one that is compiled is the one that is not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.recipe import Recipe
from pipelines.training.trainer import train
from tests.slow.conftest import CODE, PATIENCE, mpdit

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the compiler leaves processes behind

TOGETHER = pytest.mark.xdist_group("processes")  # the training of one process is made once
RECIPE = "steps: 6\nbatch: 16\noptimizer: {lr: 0.02}\nruntime: {device: cpu, threads: 1}\n"
TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
DIES_AT_4 = """
import os, sys
from pathlib import Path
from pipelines.training.trainer import train
from pipelines.training.training_folder import read_recipe

def report(line):
    if line["step"] == 4:
        os._exit(9)  # as SIGKILL would: the report is out, the checkpoint is not

train(read_recipe(Path(sys.argv[1])), Path(sys.argv[2]), report)
"""

WITH_OTHER_FOLDERS = """
import os, sys
from pathlib import Path
from pipelines.training.trainer import train
from pipelines.training.training_folder import read_recipe

train(read_recipe(Path(sys.argv[1])), Path(sys.argv[2 + int(os.environ["RANK"])]), lambda line: None)
"""

SCORES = """
import json, sys
from pathlib import Path
from accelerate import PartialState
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.scoring.ranks import all_ranks
from pipelines.training.training_folder import read_recipe

PartialState(cpu=True)
run, results = Path(sys.argv[1]), []
recipe, cells = read_recipe(run), [Cell(width, Evaluation(samples=1100, steps=4)) for width in (0.0, 0.1)]
evaluate(run, recipe, cells, results.append, ScoringOptions(ranks=all_ranks()))
Path(sys.argv[2] + str(all_ranks().rank)).write_text(json.dumps([all_ranks().count, results]))
"""


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TWO, *arguments], cwd=CODE, capture_output=True, text=True, timeout=PATIENCE)


def assert_equal_runs(one: Path, two: Path) -> None:
    a, b = (load_file(folder / "ema" / "raw.safetensors") for folder in (one, two))
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains of the recipe."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "recipe.yaml").write_text(RECIPE)
    mpdit("train", "recipe.yaml", "--output", "one", cwd=folder)
    return folder / "one"


@TOGETHER
def test_two_processes_train_what_one_trains(tmp_path: Path, one: Path) -> None:
    done = launch("-m", "cli.main", "train", str(one.parent / "recipe.yaml"), "--output", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fd_digits_2k") == 1
    assert "process 1 of 2" in (tmp_path / "two" / "log.txt").read_text()
    assert_equal_runs(one, tmp_path / "two")


@TOGETHER
def test_two_processes_that_died_continue_as_two_and_as_one(tmp_path: Path, one: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(DIES_AT_4)
    with_micro_batches = tmp_path / "recipe2.yaml"
    with_micro_batches.write_text(RECIPE.replace("threads: 1", "threads: 1, micro_batch: 3"))
    for name in ("two", "other"):
        assert launch(str(script), str(with_micro_batches), str(tmp_path / name)).returncode != 0
        assert not (tmp_path / name / "ema" / "raw.safetensors").exists()
    done = launch("-m", "cli.main", "train", str(with_micro_batches), "--output", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    mpdit("train", str(with_micro_batches), "--output", "other", cwd=tmp_path)
    for name in ("two", "other"):
        assert_equal_runs(one, tmp_path / name)
        assert "from step 2 on cpu" in (tmp_path / name / "log.txt").read_text()
    assert "began in 2 process(es) and continues in 1" in (tmp_path / "other" / "log.txt").read_text()


@TOGETHER
@pytest.mark.soak
def test_all_processes_begin_where_the_first_does_whatever_lies_in_their_folders(tmp_path: Path, one: Path) -> None:
    """Adds to CI: two processes that find different checkpoints begin where the first one does."""
    dies, goes_on, recipe = tmp_path / "dies.py", tmp_path / "goes_on.py", one.parent / "recipe.yaml"
    dies.write_text(DIES_AT_4)
    goes_on.write_text(WITH_OTHER_FOLDERS)
    assert launch(str(dies), str(recipe), str(tmp_path / "two")).returncode != 0
    for other in ("empty", "older"):
        (tmp_path / other).mkdir()
    shutil.copytree(tmp_path / "two" / "checkpoints" / "step-00000001", tmp_path / "older/checkpoints/step-00000001")
    for other in ("empty", "older"):
        first = tmp_path / f"beside-{other}"
        shutil.copytree(tmp_path / "two", first)
        done = launch(str(goes_on), str(recipe), str(first), str(tmp_path / other))
        assert done.returncode == 0, done.stderr
        assert_equal_runs(one, first)
        assert "from step 2 on cpu" in (tmp_path / other / "log.txt").read_text()


@TOGETHER
def test_two_processes_score_what_one_scores(tmp_path: Path, one: Path) -> None:
    script = tmp_path / "scores.py"
    script.write_text(SCORES)
    done = launch(str(script), str(one), str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, str(script), str(one), str(tmp_path / "alone")], cwd=CODE, check=True)
    (count, alone), *two = (json.loads((tmp_path / name).read_text()) for name in ("alone0", "two0", "two1"))
    assert (count, two[0][0], two[1][0]) == (1, 2, 2)
    for _, results in two:
        for ours, theirs in zip(results, alone, strict=True):
            assert (ours["value"], ours["left_out"]) == (theirs["value"], theirs["left_out"])
    assert not (one / "scores").exists()


@pytest.mark.soak
def test_the_compiled_path_s_losses_are_the_plain_one_s(tmp_path: Path) -> None:
    """Adds to CI: 500 compiled steps lose as much as plain ones."""
    losses = {}
    for compiled in (False, True):
        fields = {
            "steps": 500,
            "batch": 32,
            "optimizer": {"lr": 0.02},
            "runtime": {"device": "cpu", "threads": 1, "compile": compiled},
        }
        reports: list[dict[str, float]] = []
        train(
            Recipe.model_validate(fields), tmp_path / str(compiled), lambda line, to=reports: to.append(line["metrics"])
        )
        losses[compiled] = [metrics["loss"] for metrics in reports[1:]]  # the first is of the start
    assert "not compiled" not in (tmp_path / "True" / "log.txt").read_text()
    assert losses[True] == pytest.approx(losses[False], rel=0.01), json.dumps(losses)
