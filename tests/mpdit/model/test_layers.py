import math

import pytest
import torch
from torch import nn

from mpdit.model import layers
from mpdit.randomness import normal
from mpdit.schedules import ddpm_sigmas

COUNT = 4096


def vectors(channels: int, seed: int = 0) -> torch.Tensor:
    return normal((COUNT, channels), seed, 0, "test")


def root_mean_square(x: torch.Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def made(module: nn.Module) -> nn.Module:
    layers.initialize_weights(module, torch.Generator().manual_seed(1))
    return module


def test_normalize_gives_every_vector_unit_magnitude() -> None:
    x = vectors(24) * torch.logspace(-2, 3, COUNT)[:, None]
    torch.testing.assert_close(layers.magnitude(layers.normalize(x)), torch.ones(COUNT))


def test_normalize_keeps_zero_a_zero_and_its_gradient_finite() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    y = layers.normalize(x)
    y.sum().backward()
    assert y.abs().max() == 0
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_normalize_has_the_derivative_of_its_formula() -> None:
    x = normal((5, 7), 0, 0, "test").double().requires_grad_()
    assert torch.autograd.gradcheck(layers.normalize, x)
    torch.testing.assert_close(layers.normalize(x), x / x.square().mean(-1, keepdim=True).sqrt())


def test_normalize_measures_in_fp32_whatever_the_type() -> None:
    x = (vectors(64) * 300).to(torch.bfloat16)
    assert layers.normalize(x).dtype == torch.bfloat16
    torch.testing.assert_close(layers.magnitude(layers.normalize(x)), torch.ones(COUNT), atol=4e-3, rtol=0)


@pytest.mark.parametrize("t", [0.1, 0.3, 0.5, 0.9])
def test_mp_sum_keeps_unit_magnitude(t: float) -> None:
    assert root_mean_square(layers.mp_sum(vectors(64), vectors(64, seed=1), t)) == pytest.approx(1, abs=0.01)


def test_mp_sum_is_its_formula() -> None:
    a, b = vectors(8), vectors(8, seed=1)
    torch.testing.assert_close(layers.mp_sum(a, b, 0.3), (0.7 * a + 0.3 * b) / math.sqrt(0.7**2 + 0.3**2))


def test_mp_silu_keeps_unit_magnitude() -> None:
    assert root_mean_square(layers.mp_silu(vectors(256))) == pytest.approx(1, abs=0.005)


def test_silu_magnitude_is_the_integral() -> None:
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    integral = torch.trapezoid(nn.functional.silu(z) ** 2 * density, z).sqrt()
    assert float(integral) == pytest.approx(layers.SILU_MAGNITUDE, abs=1e-3)


def test_mp_linear_keeps_unit_magnitude() -> None:
    assert root_mean_square(made(layers.MPLinear(96, 512))(vectors(96))) == pytest.approx(1, abs=0.02)


def test_weight_normalisation_ignores_the_size_of_its_weight() -> None:
    layer, x = made(layers.WNLinear(12, 5)), vectors(12)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(7)
    torch.testing.assert_close(layer(x), before)


def test_the_projected_gradient_is_that_of_weight_normalisation() -> None:
    one = nn.ModuleList([made(layers.MPLinear(48, outputs)) for outputs in (8, 32)] + [made(layers.MPLinear(9, 5))])
    two = nn.ModuleList([layers.WNLinear(48, 8), layers.WNLinear(48, 32), layers.WNLinear(9, 5)])
    two.load_state_dict(one.state_dict())
    for module in (one, two):
        for layer in module:
            layer(vectors(layer.weight.shape[1])).pow(3).sum().backward()
    layers.project_gradients(one)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4 * float(b.grad.abs().max()))


def test_gradients_are_orthogonal_to_normalised_weights() -> None:
    layer = made(layers.MPLinear(48, 32))
    layer(vectors(48)).pow(3).sum().backward()
    layers.project_gradients(layer)
    along = (layer.weight * layer.weight.grad).sum(-1).detach()
    across = layer.weight.detach().norm(dim=-1) * layer.weight.grad.norm(dim=-1)
    assert float((along.abs() / across).max()) < 1e-5


def test_normalize_weights_brings_every_row_to_the_root_of_its_inputs() -> None:
    module = nn.Sequential(made(layers.MPLinear(30, 20)), made(layers.MPEmbedding(7, 50)))
    with torch.no_grad():
        for weight in layers.normalised_weights(module):
            weight.mul_(3.7)
    layers.normalize_weights(module)
    for weight in layers.normalised_weights(module):
        torch.testing.assert_close(weight.norm(dim=-1), torch.full((len(weight),), weight.shape[1] ** 0.5))


def test_embeddings_have_unit_magnitude() -> None:
    table = made(layers.MPEmbedding(11, 64))
    torch.testing.assert_close(layers.magnitude(table(torch.arange(11))), torch.ones(11))


def test_fourier_features_have_unit_magnitude_at_every_level() -> None:
    features = layers.FourierFeatures(256)(torch.linspace(-2, 2, 500))
    assert float((layers.magnitude(features) - 1).abs().max()) < 0.1
    assert root_mean_square(features) == pytest.approx(1, abs=0.02)


def test_fourier_features_of_near_levels_are_near() -> None:
    features = layers.FourierFeatures(256)
    x = features(torch.tensor([0.5, 0.51, 1.5]))
    similarity = nn.functional.cosine_similarity(x[:1], x[1:])
    assert similarity[0] > 0.99
    assert similarity[1].abs() < 0.2


def test_fourier_frequencies_are_standard_normal() -> None:
    frequencies = layers.FourierFeatures(1000).frequencies
    assert float(frequencies.mean()) == pytest.approx(0, abs=1e-3)
    assert float(frequencies.std()) == pytest.approx(1, abs=0.01)


def test_layers_too_large_for_one_group_are_normalised_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "GROUP_LIMIT", {"cpu": 1000})
    module = nn.ModuleList(made(layers.MPLinear(30, 20)) for _ in range(5))
    for weight in module.parameters():
        nn.init.normal_(weight, std=3)
    layers.normalize_weights(module)
    for weight in module.parameters():
        torch.testing.assert_close(layers.magnitude(weight), torch.ones(20))


def test_hashed_features_of_near_steps_share_nothing() -> None:
    levels = ddpm_sigmas().log() / 4
    features = layers.HashedFeatures(256, levels)
    x = features(levels.float()[[500, 501, 510]])
    assert nn.functional.cosine_similarity(x[:1], x[1:]).abs().max() < 0.25
    assert root_mean_square(features(levels.float())) == pytest.approx(0.5**0.5, abs=0.02)


def test_sinusoidal_features_of_near_levels_are_near() -> None:
    x = layers.SinusoidalFeatures(256)(torch.tensor([0.5, 0.502, 1.5]))
    similarity = nn.functional.cosine_similarity(x[:1], x[1:])
    assert similarity[0] > 0.9
    assert similarity[1] < 0.8
