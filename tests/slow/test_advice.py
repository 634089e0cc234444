"""What `suggest` says is a command that works, and a sweep can follow it by itself."""

import json
import shlex
from pathlib import Path

import pytest

from tests.slow.conftest import mpdit, mpdit_json

pytestmark = pytest.mark.soak

SWEEP = """\
name: slow-rates
recipe: {model: {width: 16}, steps: 60, batch: 32, runtime: {device: cpu}}
axes: {optimizer.lr: [0.003, 0.01], ema.sigma_rel: [0.05, 0.1]}   # 0.03 is best at 60 steps
evaluation: {samples: 500, steps: 4}
confirm: {best: 0}
"""


def test_advice_is_pasted_and_followed(tmp_path: Path) -> None:
    """Adds to CI: an axis of rates that are far too small is extended by a pasted command, then by the sweep itself."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    mpdit("sweep", "sweep.yaml", cwd=tmp_path)
    advice = json.loads(mpdit("suggest", "--json", cwd=tmp_path))
    edge = next(one for one in advice if (one["kind"], one["axis"]) == ("edge", "optimizer.lr"))
    mpdit(*shlex.split(edge["command"])[1:], cwd=tmp_path)
    rows = mpdit_json("rank", "slow-rates", cwd=tmp_path)
    assert {row["params"]["optimizer.lr"] for row in rows} == {0.003, 0.01, 0.033}
    hours = ("--until", "settled", "--hours", "0.2")
    mpdit("sweep", edge["command"].split()[2], *hours, cwd=tmp_path)
    assert max(row["params"]["optimizer.lr"] for row in mpdit_json("rank", "slow-rates", cwd=tmp_path)) > 0.033


def test_finalists_are_confirmed_in_a_sweep_of_their_own(tmp_path: Path) -> None:
    """Adds to CI: finalists take over the seed that was trained; each other one is trained once a point."""
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("[0.003, 0.01]", "[0.003, 0.01, 0.05]"))
    mpdit("sweep", "sweep.yaml", "--set", "confirm={best: 2, seeds: 1}", cwd=tmp_path)
    rows = mpdit_json("rank", "slow-rates-confirm", cwd=tmp_path)
    assert {row["seeds"] for row in rows} == {2}
    lines = (tmp_path / "runs/sweeps/slow-rates-confirm/ledger.jsonl").read_text().splitlines()
    started = [event for event in map(json.loads, lines) if event["event"] == "trial_started"]
    taken_over = {event["trial"] for event in started if "from" in event}
    assert len(taken_over) == 2
    assert len({event["trial"] for event in started} - taken_over) == 2
