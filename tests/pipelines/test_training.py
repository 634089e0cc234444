import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mpdit
from mpdit.ema import snapshot_steps
from mpdit.errors import BadInput
from pipelines.recipe import Recipe
from pipelines.training import Diverged, is_trained, read_recipe, train

Reports = list[dict[str, Any]]


class Killed(Exception):
    """Stands for a process that ends between its report and its checkpoint."""


def trained(recipe: Recipe, folder: Path) -> Reports:
    reports: Reports = []
    train(recipe, folder, reports.append)
    return reports


def killed_at(recipe: Recipe, folder: Path, step: int) -> Reports:
    reports: Reports = []

    def report(line: dict[str, Any]) -> None:
        reports.append(line)
        if line["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, folder, report)
    return reports


def results(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": tensor
        for path in sorted((folder / "ema").glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one: Path, two: Path) -> bool:
    a, b = results(one), results(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def figures(reports: Reports) -> list[dict[str, float]]:
    """What is reported, without what depends on the clock."""
    clock = ("images_per_second", "training_seconds")
    return [{k: v for k, v in line["metrics"].items() if k not in clock} for line in reports]


@pytest.mark.parametrize("step", [1, 4, 10])
def test_a_killed_run_ends_as_the_undisturbed_one(step: int, tmp_path: Path, small_recipe: Recipe) -> None:
    undisturbed = trained(small_recipe, tmp_path / "undisturbed")
    killed_at(small_recipe, tmp_path / "killed", step)
    continued = trained(small_recipe, tmp_path / "killed")
    assert same(tmp_path / "killed", tmp_path / "undisturbed")
    assert figures(continued) == figures(undisturbed)[-len(continued) :]
    assert len(continued) == 10 - (step - 1)  # at most one interval is redone


def test_a_run_with_a_damaged_checkpoint_ends_as_the_undisturbed_one(
    tmp_path: Path, small_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    trained(small_recipe, tmp_path / "undisturbed")
    killed_at(small_recipe, tmp_path / "killed", 5)
    newest = sorted((tmp_path / "killed/checkpoints").glob("step-*"))[-1]
    (newest / "state.safetensors").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        trained(small_recipe, tmp_path / "killed")
    assert "is damaged" in caplog.text
    assert "is damaged" in (tmp_path / "killed/log.txt").read_text()
    assert same(tmp_path / "killed", tmp_path / "undisturbed")


def test_a_second_run_in_the_same_process_gives_the_first_ones_result(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path / "fresh")
    half = small_recipe.runtime.model_copy(update={"precision": "bf16"})
    trained(small_recipe.model_copy(update={"runtime": half, "seed": 5}), tmp_path / "between")
    trained(small_recipe, tmp_path / "reused")
    assert same(tmp_path / "fresh", tmp_path / "reused")


def test_a_finished_run_is_not_trained_again(tmp_path: Path, small_recipe: Recipe) -> None:
    assert trained(small_recipe, tmp_path)
    assert is_trained(tmp_path)
    assert trained(small_recipe, tmp_path) == []


def test_a_folder_of_another_training_is_refused(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path)
    with pytest.raises(BadInput, match="holds another training"):
        trained(small_recipe.model_copy(update={"seed": 1}), tmp_path)


def test_what_was_settled_at_the_first_start_is_kept(tmp_path: Path, small_recipe: Recipe) -> None:
    killed_at(small_recipe, tmp_path, 3)
    asked = small_recipe.model_copy(update={"runtime": small_recipe.runtime.model_copy(update={"threads": 2})})
    assert train(asked, tmp_path, lambda _line: None).runtime.threads == 1
    assert read_recipe(tmp_path).runtime.compile is False


def test_a_report_goes_out_before_its_checkpoint(tmp_path: Path, small_recipe: Recipe) -> None:
    reported: list[int] = []

    def report(line: dict[str, Any]) -> None:
        reported.append(line["step"])
        assert not (tmp_path / f"checkpoints/step-{line['step']:08d}").exists()

    train(small_recipe, tmp_path, report)
    assert reported == list(range(1, 11))


def test_snapshots_are_kept_at_the_planned_steps(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path)
    kept = sorted(int(path.stem.split("-")[1]) for path in (tmp_path / "ema").glob("step-*"))
    assert kept == snapshot_steps(10)
    assert not list((tmp_path / "ema").glob("*.partial"))


def test_a_report_tells_the_magnitudes(tmp_path: Path, small_recipe: Recipe) -> None:
    last = trained(small_recipe, tmp_path)[-1]["metrics"]
    assert last["magnitude/weights"] == pytest.approx(1, abs=1e-3)
    assert {"loss", "lr", "magnitude_drift", "magnitude/gradients", "images_per_second"} <= last.keys()
    for half in ("attention", "mlp"):
        for place in ("input", "residual"):
            assert last[f"magnitude/block3/{half}/{place}/mean"] > 0
    assert all(math.isfinite(value) for value in last.values())


def test_a_loss_that_is_not_finite_is_a_divergence(tmp_path: Path, small_recipe: Recipe) -> None:
    wild = small_recipe.model_copy(update={"objective": small_recipe.objective.model_copy(update={"p_mean": 300.0})})
    with pytest.raises(Diverged, match="diverged by step 1: the loss is"):
        trained(wild, tmp_path)
    assert not is_trained(tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_bf16_follows_fp32(tmp_path: Path, small_recipe: Recipe) -> None:
    half = small_recipe.model_copy(update={"runtime": small_recipe.runtime.model_copy(update={"precision": "bf16"})})
    full, low = trained(small_recipe, tmp_path / "fp32"), trained(half, tmp_path / "bf16")
    for a, b in zip(full, low, strict=True):
        assert b["metrics"]["loss"] == pytest.approx(a["metrics"]["loss"], rel=0.05)


def test_a_finished_run_loads_at_any_width(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path)
    own, recipe = mpdit.load(tmp_path)
    assert recipe["steps"] == 10
    named, raw = mpdit.load(tmp_path, ema=0.1)[0], mpdit.load(tmp_path, ema=0)[0]
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), named.parameters(), strict=True))
    assert not torch.equal(named.network.patches.weight, raw.network.patches.weight)
    for weight in (named.network.patches.weight, raw.network.patches.weight):
        torch.testing.assert_close(weight.detach().square().mean(-1), torch.ones(len(weight)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("what", ["missing", "unfinished"])
def test_what_cannot_be_loaded_is_refused(what: str, tmp_path: Path, small_recipe: Recipe) -> None:
    if what == "unfinished":
        killed_at(small_recipe, tmp_path, 3)
    else:
        shutil.rmtree(tmp_path)
    with pytest.raises(BadInput, match="not finished" if what == "unfinished" else "neither a bundle nor a run"):
        mpdit.load(tmp_path)
