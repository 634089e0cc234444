import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from mpdit.data.dataset import evenly_over_classes
from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.model.architecture import SIZES, Architecture
from mpdit.model.design import choose_design
from mpdit.model.modulation.registry import part_names
from mpdit.training import magnitude
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


MODULATIONS = ["none", *("+".join(kinds) for count in (1, 2, 3, 4) for kinds in combinations(part_names(), count))]


def new_drift(size: str, modulation: str, samples: int) -> float:
    depth, width, heads = SIZES[size]
    architecture = Architecture(depth, width, heads, 2, modulation, channels=1, resolution=8, classes=10)
    digits = load_dataset("digits")
    denoiser = build_denoiser(architecture, Edm(digits.std), seed=0)
    few = replace(digits, labels=digits.labels[:samples])
    return magnitude.magnitude_drift(magnitude.activation_magnitudes(denoiser, few))


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_a_new_network_keeps_magnitude_under_every_modulation(modulation: str) -> None:
    assert new_drift("nano", modulation, 64) < 0.1  # a sum's, by the chance correlation of 64 channels


@pytest.mark.parametrize("size", ["XS", "S"])
def test_a_new_network_keeps_magnitude_at_every_size(size: str) -> None:
    assert new_drift(size, "+".join(part_names()), 16) < 0.05


@pytest.mark.soak
@pytest.mark.parametrize("size", ["B", "L", "XL"])
def test_a_large_new_network_keeps_magnitude(size: str) -> None:
    """Adds to CI: the magnitudes of new networks of the sizes B, L and XL."""
    assert new_drift(size, "+".join(part_names()), 4) < 0.05


@pytest.mark.parametrize("design", ["A", "D"])
def test_without_exact_sums_the_stream_of_a_new_network_leaves_unit_magnitude(design: str) -> None:
    architecture = small_architecture("scale+shift+gate", design=choose_design(design))
    denoiser = build_denoiser(architecture, Edm(0.75), seed=0)
    assert magnitude.magnitude_drift(magnitude.activation_magnitudes(denoiser, load_dataset("digits"))) > 0.05


@pytest.mark.parametrize(("design", "sums"), [("E", 4), ("F", 1)])
def test_drift_is_seen_before_a_stream_is_brought_back(design: str, sums: int) -> None:
    """With branches that repeat the stream a sum grows by 1/√(0.7² + 0.3²); in F each one begins at 1 again."""
    network = small_architecture("none", design=choose_design(design))
    denoiser = build_denoiser(network, Edm(0.75), seed=0)
    for block in denoiser.network.blocks:
        block.attention.branch = block.mlp.branch = nn.Identity()
    drift = magnitude.magnitude_drift(magnitude.activation_magnitudes(denoiser, load_dataset("digits")))
    assert drift == pytest.approx(-sums * math.log(math.hypot(0.7, 0.3)), abs=0.1 if design == "E" else 1e-5)


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


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0] * 900 + [1] * 400, {0: 128, 1: 128}),
        ([0] * 900 + [1] * 6, {0: 250, 1: 6}),  # all of a rare class
        ([2] * 9, {2: 9}),
        ([number % 10 for number in range(1797)], dict.fromkeys(range(6), 26) | dict.fromkeys(range(6, 10), 25)),
    ],
)
def test_the_probe_is_spread_evenly_over_the_classes(labels: list[int], chosen: dict[int, int]) -> None:
    index = evenly_over_classes(torch.tensor(labels), 256)
    counts = sorted(torch.tensor(labels)[index].unique(return_counts=True)[1].tolist())
    assert counts == sorted(chosen.values())
    assert index.tolist() == sorted(set(index.tolist()))


def test_a_probe_of_fewer_samples_than_classes_is_spread_over_all_classes() -> None:
    index = evenly_over_classes(torch.arange(1000).repeat(3), 256)
    assert len(index) == 256
    assert int(index.diff().max()) <= 7  # 1000 / 256 would be 4


def test_a_matrix_that_was_zero_has_no_relative_update() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    torch.nn.init.zeros_(module[0].weight)
    torch.nn.init.eye_(module[1].weight)
    before = [weight.clone() for weight in magnitude.matrices(module).values()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.5 * torch.eye(2)
    assert magnitude.update_magnitudes(module, before) == {"1": pytest.approx(0.5)}


def test_a_stream_of_nothing_has_drifted_infinitely_far() -> None:
    assert magnitude.magnitude_drift({"block0/mlp/residual": (0.0, 0.0)}) == math.inf
