"""A sweep from the command line alone; the driver is replaced, so that nothing is trained."""

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe import Recipe
from sweeps.planning.plan import Plan
from sweeps.spec.reading import read_spec
from tests.cli.conftest import Command, Refused
from tests.cli.test_writing import prepared_images

COMMAND = ("sweep", "--axis", "optimizer.lr=0.03,0.1", "--axis", "ema.sigma_rel=0.03, 0.05")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that would have been run."""
    plans: list[Plan] = []

    def conduct(plan: Plan, *_: Any) -> None:
        plans.append(plan)

    monkeypatch.setattr("cli.sweeping.conduct", conduct)
    return plans


def test_options_are_a_sweep(started: list[Plan], mpdit: Command, tmp_path: Path) -> None:
    assert mpdit(*COMMAND, "--steps", "450", "--name", "small", cwd=tmp_path).returncode == 0
    spec = started[0].spec
    assert (spec.name, spec.recipe.steps, spec.recipe.data.name) == ("small", 450, "digits")
    assert spec.axes == {"optimizer.lr": [0.03, 0.1], "ema.sigma_rel": [0.03, 0.05]}
    assert len(started[0].trials) == 2
    assert os.listdir(tmp_path) == []  # noqa: PTH208  (nothing is written before it runs)


def test_the_sweep_is_the_one_that_a_file_would_be(started: list[Plan], mpdit: Command, tmp_path: Path) -> None:
    """Same trials: what is done with one is known to the other. Ranges and settings go along."""
    prepared_images(tmp_path / "set", 20)
    command = ("sweep", "--data", "set", "--axis", "model.modulation=scale+gate,none", "--axis", "seed=[0, 1]")
    assert mpdit(*command, "--save", "kept/quick.yaml", cwd=tmp_path).returncode == 0
    assert mpdit(*command, "--save", "kept/quick.yaml", cwd=tmp_path).returncode == 0  # the same command goes on
    kept = read_spec(tmp_path / "kept" / "quick.yaml")
    assert kept == started[0].spec == started[1].spec
    assert (kept.recipe.batch, kept.recipe.model.patch, kept.evaluation.extractor) == (16, 2, "inception")
    assert kept.recipe.data.flips is False
    assert mpdit("sweep", "kept/quick.yaml", cwd=tmp_path).returncode == 0
    assert [trial.id for trial in started[2].trials] == [trial.id for trial in started[0].trials]
    ranged = ("sweep", "--axis", "optimizer.lr={log_uniform: [0.01, 0.1]}", "--set", "search.algorithm=random")
    assert mpdit(*ranged, "--set", "search.trials=3", "--set", "recipe.batch=64").returncode == 0
    assert (len(started[3].trials), started[3].spec.recipe.batch) == (3, 64)


def test_a_sweep_of_the_defaults_has_their_trials(started: list[Plan], mpdit: Command) -> None:
    assert mpdit("sweep", "--axis", f"optimizer.lr={Recipe().optimizer.lr}", "--steps", "600").returncode == 0
    assert started[0].trials[0].recipe == Recipe()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), ["Missing argument", "--axis"]),
        (("--data", "digits"), ["Missing argument"]),
        (("--axis", "optimizer.lr"), ["says no values", "optimizer.lr=0.03,0.1"]),
        (("--axis", "optimizer.lr="), ["says no values"]),
        (("--axis", "optimizer.lrr=0.1"), ["the command line: axes has no field", "nearest:  optimizer.lr"]),
        (("--axis", "optimizer.lr=fast"), ["optimizer.lr cannot be 'fast'"]),
        (("--axis", "optimizer.lr=0.1,0.1"), ["a value twice"]),
        (("--axis", "seed=0", "--data", "digit"), ["nearest:  digits"]),
        (("--axis", "seed=0", "--name", "a name"), ["name"]),
        (("conditioning", "--axis", "seed=0"), ["--axis is for a sweep without a file", "--set"]),
        (("conditioning", "--save", "x.yaml"), ["--save is for a sweep without a file"]),
        (("--axis", "model.patch=3", "--save", "new.yaml"), ["does not divide"]),
    ],
)
def test_what_is_no_sweep_is_refused(
    words: tuple[str, ...], says: list[str], started: list[Plan], refused: Refused, tmp_path: Path
) -> None:
    message = refused("sweep", *words, cwd=tmp_path)
    assert all(part in message for part in says), message
    assert started == []
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_written_over(started: list[Plan], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert "is there already" in refused(*COMMAND, "--save", "mine.yaml", cwd=tmp_path)
    assert (tmp_path / "mine.yaml").read_text() == "name: mine\n"
    assert started == []


def test_a_sweep_can_be_watched_as_long_as_it_runs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mpdit: Command, tmp_path: Path
) -> None:
    seen: list[str] = []

    def conduct(*_: Any) -> None:
        address = capfd.readouterr().err.split("watch it at ")[1].strip()
        with urllib.request.urlopen(address) as answer:
            seen.extend([address, answer.read().decode()])

    monkeypatch.setattr("cli.sweeping.conduct", conduct)
    assert mpdit(*COMMAND, "--watch", "--storage", tmp_path).returncode == 0
    assert "<title>quick" in seen[1]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(seen[0])
