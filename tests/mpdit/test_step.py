import math

import pytest
import torch

from mpdit import step as engine
from mpdit.datasets import load_dataset
from mpdit.diffusion import Denoiser, Edm, build_denoiser
from mpdit.layers import normalised_weights
from mpdit.randomness import sample_order
from tests.conftest import small_architecture

CPU = torch.device("cpu")


def batch(step: int = 1, size: int = 16, share: slice = slice(None), dropout: float = 0.1) -> engine.Batch:
    return engine.draw_batch(load_dataset("digits"), 0, step, size, dropout, share, CPU)


def take(state: engine.TrainingState, data: engine.Batch) -> float:
    objective = state.denoiser.objective
    return float(engine.train_step(state, state.denoiser, objective, data, 0.01, lambda loss: loss.backward()))


def test_after_a_step_every_row_has_the_norm_of_the_root_of_its_inputs(small_denoiser: Denoiser) -> None:
    state = engine.new_state(small_denoiser, (0.9, 0.99))
    for number in range(1, 4):
        take(state, batch(number))
    for weight in normalised_weights(small_denoiser):
        torch.testing.assert_close(weight.norm(dim=-1), torch.full((len(weight),), math.sqrt(weight.shape[1])))


def test_the_shares_of_two_processes_are_the_batch_of_one() -> None:
    whole, first, second = batch(), batch(share=slice(0, 8)), batch(share=slice(8, 16))
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
    for average in state.averages:
        for tensor, parameter in zip(average, small_denoiser.parameters(), strict=True):
            torch.testing.assert_close(tensor, parameter.detach())


def test_the_learning_rate_warms_up_stays_and_falls_as_the_inverse_root() -> None:
    rate = [engine.learning_rate(step, 1000, 0.02, warmup=0.1, decay_from=0.4) for step in range(1, 1001)]
    assert rate[49] == pytest.approx(0.01)
    assert rate[99] == rate[399] == pytest.approx(0.02)
    assert rate[899] == pytest.approx(0.02 / math.sqrt(900 / 400))
    assert engine.learning_rate(1, 1, 0.02, 0, 0.4) == pytest.approx(0.02)


@pytest.mark.parametrize("modulation", ["none", "scale+shift+gate", "scale+rotation+gate", "rotation+gate"])
def test_the_loss_falls(modulation: str) -> None:
    denoiser = build_denoiser(small_architecture(modulation), Edm(load_dataset("digits").std), seed=0)
    state = engine.new_state(denoiser, (0.9, 0.99))
    losses = [take(state, batch(number, 64)) for number in range(1, 61)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
