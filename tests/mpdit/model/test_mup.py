import math

import pytest
import torch

from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.edm import Edm
from mpdit.model.design import DESIGNS
from mpdit.model.mup import rule
from mpdit.model.transformer import build_transformer, parameter_rules
from mpdit.training.step import BatchSampler, accumulate_gradient, apply_gradient, new_state
from tests.conftest import small_architecture

EDM2 = {64: 0.0170, 128: 0.0120, 192: 0.0100, 256: 0.0090, 320: 0.0080, 384: 0.0070, 448: 0.0065}  # width: its preset's


@pytest.mark.parametrize(("width", "lr"), EDM2.items())
def test_the_hidden_rate_of_normalised_maps_is_that_of_edm2_s_presets(width: int, lr: float) -> None:
    assert 0.01 * rule("hidden", True, width, 192 / width).rate == pytest.approx(lr, rel=0.04)


@pytest.mark.parametrize("design", "AEF")
def test_the_roles_follow_from_what_grows(design: str) -> None:
    architecture = small_architecture(design=DESIGNS[design], width=256, heads=16, base_width=64)
    rates = {name: its.rate for name, its in parameter_rules(architecture).items()}
    assert set(rates) == set(dict(build_transformer(architecture, 0).named_parameters()))
    kept = {"A": 1 / 4, "E": 1 / 2, "F": 1 / 2}[design]
    hidden = ("noise_embed.fc2", "project", "qkv", "branch.proj", "branch.fc1", "branch.fc2")
    for name, rate in rates.items():  # 256 noise-level channels are not taken for the width
        assert rate == (kept if name.endswith(tuple(f"{part}.weight" for part in hidden)) else 1), name
    multipliers = {name for name, its in parameter_rules(architecture).items() if its.multiplier != 1}
    assert multipliers == {"final.proj_out.weight"}


def test_plain_maps_start_as_dit_under_mup_does() -> None:
    network = build_transformer(small_architecture(design=DESIGNS["A"], width=256, heads=16, base_width=64), 0)
    expected = {
        "patch_embed": 1 / math.sqrt(4),
        "noise_embed.fc1": 1 / 16,
        "blocks.0.attention.branch.qkv": 1 / 16,
        "blocks.0.mlp.branch.fc2": 1 / 32,
        "blocks.0.mlp.conditioner.project": 1 / 16,  # not 0, as under the standard parametrisation
        "class_embed": 1.0,
    }
    for name, init_std in expected.items():
        weight = network.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert float(weight.detach().std()) == pytest.approx(init_std, rel=0.05), name
    assert not network.final.proj_out.weight.any()
    assert network.final.multiplier == 1 / 4


@pytest.mark.parametrize("design", "ABCDEF")
def test_the_answer_starts_at_0_at_every_width(design: str) -> None:
    for width in (32, 64):
        network = build_transformer(small_architecture(design=DESIGNS[design], width=width, base_width=16), 0)
        answer = network(torch.randn(2, 1, 8, 8), torch.zeros(2), torch.tensor([1, 2]))
        assert float(answer.detach().abs().max()) == 0


def after_two_steps(base_width: int | None, design: str = "F") -> Denoiser:
    architecture = small_architecture(design=DESIGNS[design], base_width=base_width)
    state = new_state(build_denoiser(architecture, Edm(0.75), seed=0), (0.9, 0.99))
    loss = DenoisingLoss(state.denoiser)

    batches = BatchSampler(load_dataset("digits"), 0, 8, 0.1)
    for step in (1, 2):
        accumulate_gradient(loss, batches.draw(step))
        apply_gradient(state, 0.02)
    return state.denoiser


def test_at_the_base_width_design_f_is_bit_for_bit_the_standard_parametrisation() -> None:
    pairs = zip(after_two_steps(None).parameters(), after_two_steps(32).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_each_parameter_moves_at_its_own_rate() -> None:
    architecture = small_architecture(design=DESIGNS["A"], base_width=8)
    denoiser = build_denoiser(architecture, Edm(0.75), seed=0)
    before = {name: parameter.detach().clone() for name, parameter in denoiser.network.named_parameters()}
    for parameter in denoiser.parameters():
        parameter.grad = torch.ones_like(parameter)
    apply_gradient(new_state(denoiser, (0.9, 0.99)), lr=0.1)  # Adam's first step is lr, whatever the gradient
    for name, parameter in denoiser.network.named_parameters():
        moved = 0.1 * parameter_rules(architecture)[name].rate
        torch.testing.assert_close(before[name] - parameter.detach(), torch.full_like(parameter, moved))
