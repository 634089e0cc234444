"""What release 0.1.0 wrote is read under the names of today; names of today are never touched."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.model.design import DESIGNS
from mpdit.model.old_names import NAMES, current_name
from mpdit.run_folder import read_weights, write_weights
from mpdit.training.ema import snapshot_path, tracked_ema, write_snapshot
from pipelines.training import checkpoint
from tests.conftest import small_architecture

OLD = {
    "network.patch_embed.": "network.patches.",
    "network.noise_embed.fc1.": "network.level.into.",
    "network.noise_embed.fc2.": "network.level.out.",
    "network.class_embed.": "network.label.",
    "attention.branch.proj.": "attention.branch.out.",
    "mlp.branch.fc1.": "mlp.branch.into.",
    "mlp.branch.fc2.": "mlp.branch.out.",
    "network.final.proj_out.": "network.final.out.",
    "logvar.": "uncertainty.",
}


def old_name(name: str) -> str:
    for now, before in OLD.items():
        name = name.replace(now, before)
    return name


def rename_as_before(path: Path) -> None:
    """Make a file of weights what release 0.1.0 would have written."""
    with safe_open(path, framework="pt") as file:
        header = {key: value for key, value in (file.metadata() or {}).items() if key != "names"}
        stored = list(file.keys())
        tensors = {old_name(name): file.get_tensor(name) for name in stored}
    assert any(name.endswith("network.blocks.0.mlp.branch.into.weight") for name in tensors)
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize("design", "AF")
def test_weights_snapshots_and_checkpoints_of_release_0_1_0_are_read(design: str, tmp_path: Path) -> None:
    architecture = small_architecture(design=DESIGNS[design])
    denoiser = build_denoiser(architecture, Edm(0.75, uncertainty=True), seed=0)
    weights = {name: parameter.detach() for name, parameter in denoiser.named_parameters()}
    write_weights(tmp_path / "model.safetensors", weights, denoiser, 7)
    write_snapshot(tmp_path, 7, [weights, {name: weight.clone() for name, weight in weights.items()}])
    for path in (tmp_path / "model.safetensors", snapshot_path(tmp_path, 7)):
        rename_as_before(path)
    read, step = read_weights(tmp_path / "model.safetensors")
    averaged = tracked_ema(tmp_path, 0.05, 7)
    for name, parameter in read.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert (averaged[name] - weights[name]).abs().max() <= weights[name].abs().max() / 65_000  # kept in 16 bits
    assert step == 7


def test_a_checkpoint_of_release_0_1_0_is_read(tmp_path: Path) -> None:
    tensors = {"adam/exp_avg/network.label.weight": torch.ones(2), "average0/uncertainty.1.bias": torch.zeros(1)}
    checkpoint.save(tmp_path, checkpoint.Checkpoint(3, tensors, {}))
    manifest = tmp_path / "step-00000003" / checkpoint.MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"names": "{NAMES}",', ""))
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert set(found.tensors) == {"adam/exp_avg/network.class_embed.weight", "average0/logvar.1.bias"}


def test_a_plug_in_s_layer_may_have_a_name_that_ours_had() -> None:
    assert current_name("network.blocks.0.mlp.branch.into.weight", NAMES) == "network.blocks.0.mlp.branch.into.weight"
