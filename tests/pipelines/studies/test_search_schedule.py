import json
import sys
from pathlib import Path

import pytest

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.studies import search_schedule
from pipelines.training.trainer import train


def test_levels_are_searched_and_can_be_used(
    tmp_path: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search_schedule, "TRAJECTORIES", 8)
    monkeypatch.setattr(search_schedule, "TEACHER_STEPS", 12)
    train(small_recipe.model_copy(update={"steps": 4}), tmp_path / "run", lambda _line: None)
    words = [str(tmp_path / "run"), "--steps", "4", "--set", "guidance=2", "--set", "guide.step=0.5"]
    outputs = []
    for more in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["search_schedule", *words, *more])
        search_schedule.main()
        outputs.append(capsys.readouterr().out)
    found = json.loads(outputs[0])
    assert len(found["sigmas"]) == 4
    assert Evaluation.model_validate({"schedule": {"sigmas": found["sigmas"]}}).network_evaluations == 4
    assert set(found["other_noise"]) == {"default", "searched"}
    assert outputs[1].startswith("evaluation: {schedule: {sigmas: [")
    with pytest.raises(InputError, match="fewer steps than the teacher"):
        search_schedule.search(tmp_path / "run", 12, Evaluation())
