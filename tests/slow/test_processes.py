"""One training shared by several processes is the training of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.slow.conftest import CODE, PATIENCE, mpdit

pytestmark = pytest.mark.slow


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("steps: 6\nbatch: 16\nruntime: {device: cpu, threads: 1}\n")
    mpdit("train", "recipe.yaml", "--output", "one", cwd=tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "cli.main"]
    done = subprocess.run(
        [*launch, "train", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "two")],
        cwd=CODE,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fd_digits_2k") == 1
    one, two = (load_file(tmp_path / name / "ema" / "raw.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)
    assert "process 1 of 2" in (tmp_path / "two" / "log.txt").read_text()
