"""Numbers that are not finite, and files of any depth, through the command line."""

import json
from pathlib import Path

import pytest

from tests.slow.conftest import mpdit, mpdit_json, refused

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SWEEP = """\
name: zeros
recipe: {model: {width: 16}, steps: 20, batch: 8, runtime: {device: cpu}}
axes:
  model.design: [A, B, C, D]
  optimizer.lr: [0.02, 1.0e+30]
  ema.sigma_rel: [0]
evaluation: {samples: 20, steps: 2}
"""


def test_networks_that_begin_with_zeros_and_rates_that_diverge_end_a_sweep_in_order(tmp_path: Path) -> None:
    file = tmp_path / "zeros.yaml"
    file.write_text(SWEEP)
    mpdit("sweep", file, "--max-concurrent", "1", "--storage", tmp_path / "runs")
    lines = [json.loads(line) for line in (tmp_path / "runs/sweeps/zeros/ledger.jsonl").read_text().splitlines()]
    reports = [line for line in lines if line["event"] == "progress"]
    assert {line["step"] for line in reports} == {0, 1, 2, 4, 8, 16, 20}
    trials = mpdit_json("status", "--storage", tmp_path / "runs")["trials"]
    ends = {trial["trial"]: trial["status"] for trial in trials}
    assert {ends[line["trial"]] for line in reports if "non_finite" in line} <= {"diverged"}
    statuses = {trial["status"] for trial in trials if trial["params"]["optimizer.lr"] == 0.02}
    assert statuses == {"completed"}
    assert {trial["status"] for trial in trials} <= {"completed", "diverged"}
    assert len(mpdit_json("rank", "--storage", tmp_path / "runs")) == 8
    mpdit("report", "--storage", tmp_path / "runs", "-o", tmp_path / "report.html")
    mpdit("sync", "--storage", tmp_path / "runs")


def test_a_file_of_any_depth_is_refused_in_a_message(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("name: deep\naxes: " + "{a: " * 3000 + "1" + "}" * 3000)
    for command in ("plan", "sweep", "train"):
        assert refused(command, file, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["deep.yaml"]
