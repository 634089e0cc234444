"""Points are promoted, the best is trained on, and each number is that of a training that was never interrupted."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.slow.conftest import mpdit, mpdit_json

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SWEEP = """\
name: {name}
recipe:
  model: {{width: 16}}
  steps: 45
  batch: 32
  runtime: {{device: cpu}}
  optimizer: {{warmup: 3, decay_from: 20}}
axes: {{optimizer.lr: {rates}, ema.sigma_rel: [0.05, 0.1]}}
evaluation: {{samples: 250, steps: 3}}
confirm: {{best: 0}}
"""
HALVING = "scheduler: {kind: halving, start: 5, factor: 3}\n"


def values(rows: list[dict[str, Any]], **params: Any) -> dict[float, float]:
    """The distance by EMA width of the rows with these values."""
    chosen = [row for row in rows if params.items() <= row["params"].items()]
    return {row["params"]["ema.sigma_rel"]: row["value"] for row in chosen}


def test_what_is_promoted_and_what_is_continued_has_the_numbers_of_an_undisturbed_training(tmp_path: Path) -> None:
    (tmp_path / "halved.yaml").write_text(SWEEP.format(name="halved", rates="[0.01, 0.03, 0.1]") + HALVING)
    mpdit("sweep", "halved.yaml", cwd=tmp_path)
    rows = mpdit_json("rank", "halved", cwd=tmp_path)
    best = next(row["params"]["optimizer.lr"] for row in rows if row["params"]["steps"] == 45)
    mpdit("best", "halved", "--continue", "60", cwd=tmp_path)  # the best row may be of any length
    longer = mpdit_json("rank", "halved-60", cwd=tmp_path)

    lines = (tmp_path / "runs/sweeps/halved/ledger.jsonl").read_text().splitlines()
    ends = [event for event in map(json.loads, lines) if event["event"] == "trial_ended"]
    taken = {(row["trial"], row["params"]["steps"]) for row in rows}
    assert {end["steps_trained"] for end in ends} <= {5, 10, 30}
    assert sum(end["steps_trained"] for end in ends) < sum(steps for _, steps in taken)

    rate = longer[0]["params"]["optimizer.lr"]
    straight = SWEEP.format(name="straight", rates=json.dumps(sorted({best, rate})))
    (tmp_path / "straight.yaml").write_text(straight)
    for steps in (45, 60):
        settings = ("--set", f"recipe.steps={steps}", "--set", f"name=straight-{steps}", "--storage", "other")
        mpdit("sweep", "straight.yaml", *settings, cwd=tmp_path)
    undisturbed = {at: mpdit_json("rank", f"straight-{at}", "--storage", "other", cwd=tmp_path) for at in (45, 60)}
    assert values(rows, **{"optimizer.lr": best, "steps": 45}) == values(undisturbed[45], **{"optimizer.lr": best})
    assert values(longer, **{"optimizer.lr": rate}) == values(undisturbed[60], **{"optimizer.lr": rate})
