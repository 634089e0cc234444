import pytest
import torch
from torch import nn

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.inference.folding import FoldedLinear, fold, refold
from mpdit.model.design import DESIGNS
from mpdit.model.layers import MPLinear, WNLinear
from mpdit.randomness import normal
from tests.conftest import small_architecture


@pytest.mark.parametrize("kind", [WNLinear, MPLinear])
def test_a_folded_layer_is_the_layer_with_its_scale(kind: type[WNLinear | MPLinear]) -> None:
    layer = kind(16, 24)
    nn.init.normal_(layer.weight, std=3.0)
    folded = fold(nn.Sequential(layer))[0]
    x = normal((5, 16), 0, 0, "x")
    for scale in (1.0, 1 / 0.596, 1.0):
        torch.testing.assert_close(folded(x, scale=scale), layer(x, scale=scale))


@pytest.mark.parametrize("design", DESIGNS)
def test_a_folded_denoiser_gives_the_same_images(design: str) -> None:
    architecture = small_architecture("scale+shift+rotation+gate", design=DESIGNS[design])
    denoiser = build_denoiser(architecture, Edm(sigma_data=0.75), seed=0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.mul_(1.5)
            if parameter.dim() == 0:
                parameter.fill_(0.7)  # gains start at 0, where nothing is to be seen
    folded = fold(denoiser)
    assert not any(isinstance(part, (MPLinear, WNLinear)) for part in folded.modules())
    assert any(isinstance(part, FoldedLinear) for part in folded.modules()) == (design in "CDEF")
    inputs = normal((6, 1, 8, 8), 0, 0, "images"), torch.linspace(0.01, 20, 6), torch.arange(6)
    torch.testing.assert_close(folded(*inputs), denoiser(*inputs), rtol=1e-4, atol=1e-5)


def test_a_folded_network_takes_the_weights_of_another() -> None:
    one, other = (build_denoiser(small_architecture(), Edm(sigma_data=0.75), seed) for seed in (0, 1))
    for denoiser in (one, other):
        torch.nn.init.constant_(denoiser.network.final.gain, 0.5)
    inputs = normal((6, 1, 8, 8), 0, 0, "images"), torch.linspace(0.01, 20, 6), torch.arange(6)
    folded = fold(one)
    first = folded(*inputs)  # its layers have met their scales
    refold(folded, other)
    torch.testing.assert_close(folded(*inputs), other(*inputs), rtol=1e-5, atol=1e-5)
    refold(folded, one)
    torch.testing.assert_close(folded(*inputs), first, rtol=1e-5, atol=1e-5)


def test_folding_leaves_the_original_alone() -> None:
    denoiser = build_denoiser(small_architecture(), Edm(sigma_data=0.75), seed=0)
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    fold(denoiser)(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())
    assert all(parameter.requires_grad for parameter in denoiser.parameters())
