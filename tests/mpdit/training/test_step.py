import math

import pytest
import torch

from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.ddpm import Ddpm
from mpdit.diffusion.objectives.edm import Edm
from mpdit.diffusion.objectives.flow import Flow
from mpdit.diffusion.objectives.registry import Objective
from mpdit.model.architecture import Architecture
from mpdit.model.design import DESIGNS
from mpdit.model.layers import magnitude, normalised_weights
from mpdit.randomness import sample_order
from mpdit.training import step as engine
from mpdit.training.magnitude import gradient_magnitude
from tests.conftest import small_architecture


def batch(step: int = 1, size: int = 16, batch_slice: slice = slice(None), dropout: float = 0.1) -> engine.Batch:
    return engine.BatchSampler(load_dataset("digits"), 0, size, dropout, batch_slice).draw(step)


def take(state: engine.TrainingState, data: engine.Batch, micro_batch: int = 1000, clip: float | None = None) -> float:
    loss = engine.accumulate_gradient(DenoisingLoss(state.denoiser), data, micro_batch)
    engine.apply_gradient(state, 0.01, clip)
    return float(loss)


def test_after_a_step_every_row_has_the_norm_of_the_root_of_its_inputs(small_denoiser: Denoiser) -> None:
    state = engine.new_state(small_denoiser, (0.9, 0.99))
    for number in range(1, 4):
        take(state, batch(number))
    for weight in normalised_weights(small_denoiser):
        torch.testing.assert_close(weight.norm(dim=-1), torch.full((len(weight),), math.sqrt(weight.shape[1])))


def test_the_slices_of_two_processes_are_the_batch_of_one() -> None:
    whole, first, second = batch(), batch(batch_slice=slice(0, 8)), batch(batch_slice=slice(8, 16))
    for field in ("images", "labels", "noise"):
        parts = torch.cat([getattr(first, field), getattr(second, field)])
        assert torch.equal(parts, getattr(whole, field))


def test_a_batch_is_a_function_of_its_step_alone() -> None:
    later = batch(7)
    batch(1)
    assert torch.equal(batch(7).noise, later.noise)
    assert not torch.equal(batch(8).noise, later.noise)


def test_every_sample_is_seen_once_an_epoch() -> None:
    seen = torch.cat([sample_order(100, 0, first, 30) for first in range(0, 300, 30)])
    for epoch in seen.split(100):
        assert epoch.sort().values.tolist() == list(range(100))
    assert seen[:100].tolist() != seen[100:200].tolist()


def test_labels_are_dropped_as_often_as_asked() -> None:
    share = sum(float((batch(number, 128, dropout=0.25).labels == 10).double().mean()) for number in range(1, 41)) / 40
    assert share == pytest.approx(0.25, abs=0.02)


def test_the_averages_follow_the_weights(small_denoiser: Denoiser) -> None:
    state = engine.new_state(small_denoiser, (0.9, 0.99))
    take(state, batch(1))
    for average in state.emas:
        for tensor, parameter in zip(average, small_denoiser.parameters(), strict=True):
            torch.testing.assert_close(tensor, parameter.detach())


@pytest.mark.parametrize("modulation", ["none", "scale+shift+gate", "scale+rotation+gate", "rotation+gate"])
@pytest.mark.parametrize("objective", [Edm(0.75)])
def test_the_loss_falls(modulation: str, objective: Objective) -> None:
    losses = descend(small_architecture(modulation), objective)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("objective", [Ddpm(0.75), Flow(0.75), Edm(0.75, uncertainty=True)])
def test_the_loss_falls_for_every_objective(objective: Objective) -> None:
    losses = descend(small_architecture(learned_variance=objective.learned_variance), objective)
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("design", "ABCDE")
def test_the_loss_falls_for_every_design(design: str) -> None:
    losses = descend(small_architecture(design=DESIGNS[design]), Edm(0.75))
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


def descend(architecture: Architecture, objective: Objective) -> list[float]:
    state = engine.new_state(build_denoiser(architecture, objective, seed=0), (0.9, 0.99))
    return [take(state, batch(number, 64)) for number in range(1, 61)]


def after(micro_batch: int, steps: int = 3) -> Denoiser:
    denoiser = build_denoiser(small_architecture(), Edm(0.75), seed=0)
    state = engine.new_state(denoiser, (0.9, 0.99))
    for number in range(1, steps + 1):
        take(state, batch(number), micro_batch)
    return denoiser


def test_micro_batches_take_the_step_of_the_whole_batch() -> None:
    whole, parts = after(16), after(5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_clipped_to_its_norm(small_denoiser: Denoiser) -> None:
    state = engine.new_state(small_denoiser, (0.9, 0.99))
    take(state, batch(1), clip=1e-3)
    norm = torch.stack([p.grad.norm() for p in small_denoiser.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def test_the_magnitude_of_a_gradient_is_that_before_clipping() -> None:
    magnitudes = []
    for clip in (None, 1e-3):
        denoiser = build_denoiser(small_architecture(), Edm(0.75), seed=0)
        engine.accumulate_gradient(DenoisingLoss(denoiser), batch(1))
        norm = engine.apply_gradient(engine.new_state(denoiser, (0.9, 0.99)), 0.01, clip)
        magnitudes.append(gradient_magnitude(denoiser, norm))
    assert magnitudes[1] == pytest.approx(magnitudes[0], rel=1e-5)


def test_weights_of_design_c_leave_unit_magnitude_and_those_of_d_stay() -> None:
    for design, leaves in (("C", True), ("D", False)):
        denoiser = build_denoiser(small_architecture(design=DESIGNS[design]), Edm(0.75), seed=0)
        state = engine.new_state(denoiser, (0.9, 0.99))
        for number in range(1, 11):
            take(state, batch(number))
        rows = magnitude(denoiser.network.blocks[0].mlp.branch.fc1.weight.detach())
        assert (float((rows - 1).abs().max()) > 1e-3) == leaves
