import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mpdit
from mpdit.diffusion.objectives.edm import Edm
from mpdit.errors import InputError
from mpdit.model.transformer import Block
from mpdit.training.ema import SCALE
from pipelines.recipe import Recipe
from pipelines.training.measurements import Diverged
from pipelines.training.out_of_memory import OutOfMemory
from pipelines.training.trainer import train
from pipelines.training.training_folder import is_trained, read_recipe

Reports = list[dict[str, Any]]
REPORTED = [1, 2, 4, 8, 10]  # steps of a training of 10


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
    """Every weight that is kept, by file and name."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted((folder / "ema").glob("*.safetensors")):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            scale = tensors.get(name + SCALE, torch.ones(()))
            found[f"{path.name}/{name}"] = tensor * scale.view(-1, *[1] * (tensor.ndim - 1)) if tensor.ndim else tensor
    return found


def same(one: Path, two: Path) -> bool:
    a, b = results(one), results(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def figures(reports: Reports) -> list[dict[str, float]]:
    """What is reported, without what depends on the clock."""
    clock = ("images_per_second", "training_seconds")
    return [{k: v for k, v in line["metrics"].items() if k not in clock} for line in reports]


@pytest.mark.parametrize(
    "step", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow), 10]
)
def test_a_killed_run_ends_as_the_undisturbed_one(step: int, tmp_path: Path, small_recipe: Recipe) -> None:
    undisturbed = trained(small_recipe, tmp_path / "undisturbed")
    killed_at(small_recipe, tmp_path / "killed", step)
    continued = trained(small_recipe, tmp_path / "killed")
    assert same(tmp_path / "killed", tmp_path / "undisturbed")
    assert figures(continued) == figures(undisturbed)[-len(continued) :]
    assert [line["step"] for line in continued if line["step"]] == [at for at in REPORTED if at >= step]


def test_a_run_with_a_damaged_checkpoint_ends_as_the_undisturbed_one(
    tmp_path: Path, small_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    trained(small_recipe, tmp_path / "undisturbed")
    killed_at(small_recipe, tmp_path / "killed", 8)
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
    with pytest.raises(InputError, match="holds another training"):
        trained(small_recipe.model_copy(update={"seed": 1}), tmp_path)


def test_what_was_settled_at_the_first_start_is_kept(tmp_path: Path, small_recipe: Recipe) -> None:
    killed_at(small_recipe, tmp_path, 4)
    asked = small_recipe.model_copy(update={"runtime": small_recipe.runtime.model_copy(update={"threads": 2})})
    assert train(asked, tmp_path, lambda _line: None).runtime.threads == 1
    assert read_recipe(tmp_path).runtime.compile is False


def test_a_report_goes_out_before_its_checkpoint(tmp_path: Path, small_recipe: Recipe) -> None:
    reported: list[int] = []

    def report(line: dict[str, Any]) -> None:
        reported.append(line["step"])
        assert not (tmp_path / f"checkpoints/step-{line['step']:08d}").exists()

    train(small_recipe, tmp_path, report)
    assert reported == [0, *REPORTED]  # before the first step, the magnitudes alone


def test_snapshots_are_kept_at_the_planned_steps(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path)
    kept = sorted(int(path.stem.split("-")[1]) for path in (tmp_path / "ema").glob("step-*"))
    assert kept == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert not list((tmp_path / "ema").glob("*.partial"))


def test_a_report_tells_the_magnitudes(tmp_path: Path, small_recipe: Recipe) -> None:
    last = trained(small_recipe, tmp_path)[-1]["metrics"]
    assert last["magnitude/weights"] == pytest.approx(1, abs=1e-3)
    assert {"loss", "lr", "magnitude_drift", "magnitude/gradients", "images_per_second"} <= last.keys()
    for half in ("attention", "mlp"):
        for place in ("input", "residual"):
            assert last[f"magnitude/block3/{half}/{place}/mean"] > 0
    assert all(math.isfinite(value) for value in last.values())


def test_a_network_that_is_not_of_this_world_before_its_first_step_is_a_divergence(
    tmp_path: Path, small_recipe: Recipe
) -> None:
    wild = small_recipe.model_copy(update={"objective": Edm(p_mean=300.0)})
    with pytest.raises(Diverged, match="diverged by step 0: a token magnitude of nan"):
        trained(wild, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_a_loss_that_is_not_finite_is_a_divergence(tmp_path: Path, small_recipe: Recipe) -> None:
    fields = small_recipe.model_dump()
    fields["model"]["design"], fields["optimizer"]["lr"] = "A", 1e30
    with pytest.raises(Diverged, match="the loss is"):
        trained(Recipe.model_validate(fields), tmp_path)
    assert not is_trained(tmp_path)


@pytest.mark.slow
def test_bf16_follows_fp32(tmp_path: Path, small_recipe: Recipe) -> None:
    half = small_recipe.model_copy(update={"runtime": small_recipe.runtime.model_copy(update={"precision": "bf16"})})
    full, low = trained(small_recipe, tmp_path / "fp32"), trained(half, tmp_path / "bf16")
    for a, b in zip(full[1:], low[1:], strict=True):
        assert b["metrics"]["loss"] == pytest.approx(a["metrics"]["loss"], rel=0.05)


def test_a_finished_run_loads_at_any_width(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path)
    own, recipe = mpdit.load(tmp_path)
    assert recipe["steps"] == 10
    named, raw = mpdit.load(tmp_path, ema=0.1)[0], mpdit.load(tmp_path, ema=0)[0]
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), named.parameters(), strict=True))
    assert not torch.equal(named.network.patch_embed.weight, raw.network.patch_embed.weight)
    for weight in (named.network.patch_embed.weight, raw.network.patch_embed.weight):
        torch.testing.assert_close(weight.detach().square().mean(-1), torch.ones(len(weight)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("what", ["missing", "unfinished"])
def test_what_cannot_be_loaded_is_refused(what: str, tmp_path: Path, small_recipe: Recipe) -> None:
    if what == "unfinished":
        killed_at(small_recipe, tmp_path, 4)
    else:
        shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="not finished" if what == "unfinished" else "neither a bundle nor a run"):
        mpdit.load(tmp_path)


def with_runtime(recipe: Recipe, **runtime: Any) -> Recipe:
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=runtime)})


def near(one: Path, two: Path, **tolerance: float) -> None:
    a, b = results(one), results(two)
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, **tolerance)


def test_micro_batches_do_not_change_the_result(tmp_path: Path, small_recipe: Recipe) -> None:
    trained(small_recipe, tmp_path / "whole")
    trained(with_runtime(small_recipe, micro_batch=3), tmp_path / "parts")
    near(tmp_path / "whole", tmp_path / "parts", rtol=0, atol=2e-4)


def test_bf16_trains_as_fp32_within_its_precision(tmp_path: Path, small_recipe: Recipe) -> None:
    exact = trained(small_recipe, tmp_path / "fp32")
    rough = trained(with_runtime(small_recipe, precision="bf16"), tmp_path / "bf16")
    for a, b in zip(exact[1:], rough[1:], strict=True):
        assert b["metrics"]["loss"] == pytest.approx(a["metrics"]["loss"], rel=0.02)
    stored = load_file(tmp_path / "bf16/ema/raw.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


def test_out_of_memory_says_what_did_not_fit_and_what_to_change(
    tmp_path: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:  # stands for a device whose memory is full
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    monkeypatch.setattr("pipelines.training.trainer.accumulate_gradient", full)
    with pytest.raises(OutOfMemory, match=r"nano/2 with 0\.\d M parameters, 8 samples .* runtime\.micro_batch: 4"):
        trained(small_recipe, tmp_path)


def test_where_nothing_compiles_training_goes_on_and_says_so(
    tmp_path: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:  # stands for a machine without a C++ compiler
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    trained(small_recipe, tmp_path / "eager")

    def as_compiled(block: Block, **_: object) -> None:
        block._compiled_call_impl = broken

    monkeypatch.setattr(Block, "compile", as_compiled)
    trained(with_runtime(small_recipe, compile=True), tmp_path / "fallen")
    assert "not compiled (default), so slower" in (tmp_path / "fallen/log.txt").read_text()
    assert same(tmp_path / "eager", tmp_path / "fallen")


def test_continuing_in_another_number_of_processes_is_said(tmp_path: Path, small_recipe: Recipe) -> None:
    killed_at(small_recipe, tmp_path, 8)
    manifest = sorted((tmp_path / "checkpoints").glob("step-*"))[-1] / "manifest.json"
    written = json.loads(manifest.read_text())
    written["facts"]["processes"] = 2
    manifest.write_text(json.dumps(written))
    trained(small_recipe, tmp_path)
    assert "began in 2 process(es) and continues in 1" in (tmp_path / "log.txt").read_text()


def test_the_effective_learning_rate_of_every_matrix_is_reported(tmp_path: Path, small_recipe: Recipe) -> None:
    metrics = trained(small_recipe, tmp_path)[-1]["metrics"]
    moved = {name: value for name, value in metrics.items() if name.startswith("magnitude/update/")}
    assert "magnitude/update/blocks.0.mlp.branch.fc1" in moved
    lr = metrics["lr"]  # Adam moves each weight by about lr, and the weights have unit magnitude
    assert all(0 < value < 3 * lr for value in moved.values())
    assert moved["magnitude/update/blocks.0.mlp.branch.fc1"] == pytest.approx(lr, rel=0.8)


def test_a_batch_of_more_samples_than_there_are_is_refused(tmp_path: Path, small_recipe: Recipe) -> None:
    with pytest.raises(InputError, match="1 to 1797"):
        trained(small_recipe.model_copy(update={"batch": 2000}), tmp_path)


def test_the_reported_gradient_is_that_before_clipping(tmp_path: Path, small_recipe: Recipe) -> None:
    last = []
    for clip in (None, 1e-3):
        optimizer = small_recipe.optimizer.model_copy(update={"clip": clip})
        recipe = small_recipe.model_copy(update={"optimizer": optimizer, "steps": 1})
        last.append(trained(recipe, tmp_path / str(clip))[-1]["metrics"]["magnitude/gradients"])
    assert last[1] == pytest.approx(last[0], rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("design", "ABCD")
def test_every_metric_of_a_network_that_begins_with_zeros_is_finite(tmp_path: Path, design: str, steps: int) -> None:
    recipe = {"model": {"design": design, "width": 16}, "steps": steps, "batch": 4, "runtime": {"threads": 1}}
    for line in trained(Recipe.model_validate(recipe), tmp_path):
        assert [name for name, value in line["metrics"].items() if not math.isfinite(value)] == []
