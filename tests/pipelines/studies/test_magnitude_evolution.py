import json
import sys
from pathlib import Path

import pytest

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.studies import magnitude_evolution as magnitudes
from pipelines.training.trainer import train


@pytest.mark.slow
def test_the_streams_of_a_trained_run_are_told_and_drawn(
    tmp_path: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for design in ("A", "E", "F"):
        model = small_recipe.model.model_copy(update={"design": design})
        train(small_recipe.model_copy(update={"model": model}), tmp_path / design, lambda _line: None)
    picture = tmp_path / "magnitude.png"
    words = [*(str(tmp_path / design) for design in "AEF"), "-o", str(picture), "--json"]
    monkeypatch.setattr(sys, "argv", ["magnitudes", *words])
    magnitudes.main()
    a, e, f = json.loads(capsys.readouterr().out).values()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(a["start"]) == len(e["end"]) == 4
    assert all(0.8 < mean < 1.25 for told in (e, f) for when in ("start", "end") for mean, _ in told[when])
    assert max(abs(mean - 1) for mean, _ in a["end"]) > 0.25


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        magnitudes.magnitudes(tmp_path)
