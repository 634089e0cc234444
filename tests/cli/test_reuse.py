"""What a person sees after a change of the code."""

from pathlib import Path

from pipelines.yaml_file import write_yaml
from sweeps.storage.events import SweepStarted
from sweeps.storage.layout import Storage
from tests.cli.conftest import Command
from tests.sweeps.conftest import ended, made, plan_of, scored


def test_reuse_is_one_of_three(mpdit: Command, tmp_path: Path) -> None:
    refused = mpdit("sweep", "conditioning", "--storage", tmp_path / "runs", "--reuse", "same")
    assert refused.returncode == 2
    assert "reuse cannot be 'same'" in refused.stderr
    assert "same-code" in refused.stderr.split("nearest:")[1]
    assert "any, same-code, none" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_other_code_is_warned_of_in_a_plan_and_marked_in_a_ranking(mpdit: Command, tmp_path: Path) -> None:
    storage, plan = Storage(tmp_path), plan_of({"optimizer.lr": [0.01, 0.02]})
    ledger = made(storage, plan)
    ledger.append(SweepStarted("s", 1))
    for trial, code in enumerate(("one", "two")):
        ledger.append(scored(plan, trial, 0, 1.0 + trial))
        ledger.append(ended(plan, trial, code=code))
    write_yaml(tmp_path / "made.yaml", {"name": "made", "axes": plan.spec.axes})
    planned = mpdit("plan", tmp_path / "made.yaml", "--storage", tmp_path)
    assert planned.returncode == 0
    assert "other code than today's has trained 2 of the trials that are reused" in planned.stderr
    ranked = mpdit("rank", "--storage", tmp_path)
    assert [line.split()[0] for line in ranked.stdout.splitlines()[1:3]] == ["1", "~"]
    assert "~  trained by other code than the best of its kinds: mpdit sweep made --reuse same-code" in ranked.stdout
    report = mpdit("report", "--storage", tmp_path, "-o", tmp_path / "report.html")
    assert report.returncode == 0
    assert "marks what other code has trained than the best one" in (tmp_path / "report.html").read_text()
