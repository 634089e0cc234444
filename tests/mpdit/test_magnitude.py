import math

import pytest
import torch

from mpdit import magnitude
from mpdit.datasets import load_dataset
from mpdit.diffusion import Denoiser, Edm, build_denoiser
from mpdit.modulation import KINDS
from mpdit.transformer import SIZES, Architecture
from tests.conftest import small_architecture


def test_every_observed_place_is_told(small_denoiser: Denoiser) -> None:
    found = magnitude.activation_magnitudes(small_denoiser, load_dataset("digits"))
    wanted = {
        f"block{b}/{half}/{place}" for b in (0, 1) for half in ("attention", "mlp") for place in ("input", "residual")
    }
    assert set(found) == wanted
    assert all(mean > 0 and std > 0 for mean, std in found.values())


def test_observing_leaves_nothing_behind(small_denoiser: Denoiser) -> None:
    magnitude.activation_magnitudes(small_denoiser, load_dataset("digits"))
    assert not any(module._forward_hooks for module in small_denoiser.modules())


def test_the_same_weights_always_have_the_same_magnitudes(small_denoiser: Denoiser) -> None:
    one, two = (magnitude.activation_magnitudes(small_denoiser, load_dataset("digits")) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("modulation", ["none", "+".join(KINDS)])
def test_a_new_network_keeps_magnitude(modulation: str) -> None:
    depth, width, heads = SIZES["S"]
    architecture = Architecture(depth, width, heads, 2, modulation, channels=1, resolution=8, classes=10)
    denoiser = build_denoiser(architecture, Edm(load_dataset("digits").std), seed=0)
    found = magnitude.activation_magnitudes(denoiser, load_dataset("digits"))
    assert magnitude.magnitude_drift(found) < 0.05


def test_drift_is_the_largest_log_magnitude_after_a_block() -> None:
    told = {"block0/mlp/residual": (1.1, 0.1), "block1/mlp/residual": (0.8, 0.1), "block1/mlp/input": (9.0, 0.1)}
    assert magnitude.magnitude_drift(told) == pytest.approx(-math.log(0.8))


def test_weights_have_unit_magnitude_and_gradients_are_measured(small_denoiser: Denoiser) -> None:
    assert magnitude.weight_magnitude(small_denoiser) == pytest.approx(1, abs=1e-4)
    for parameter in small_denoiser.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    assert magnitude.gradient_magnitude(small_denoiser) == pytest.approx(3)
    next(small_denoiser.parameters()).grad[0, 0] = math.nan
    assert not math.isfinite(magnitude.gradient_magnitude(small_denoiser))


def test_small_architectures_are_observed_too() -> None:
    denoiser = build_denoiser(small_architecture("none"), Edm(0.75), seed=0)
    assert magnitude.activation_magnitudes(denoiser, load_dataset("digits"))
