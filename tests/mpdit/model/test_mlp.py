"""Every kind of MLP: what all have in common, and each beside a plain reference."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mpdit.inference.folding import fold
from mpdit.model.design import DESIGNS
from mpdit.model.layers import initialize_weights, magnitude, normalize
from mpdit.model.mlp.swiglu import Swiglu
from mpdit.randomness import normal
from tests.mpdit.model.kinds import MLP_KINDS

WIDTH = 32
kinds = pytest.mark.parametrize("kind", MLP_KINDS)


def built(kind: str, design: str, width: int = WIDTH) -> torch.nn.Module:
    layer = MLP_KINDS[kind].build(width, DESIGNS[design])
    initialize_weights(layer, torch.Generator().manual_seed(0))
    return layer


def tokens(count: int = 16, width: int = WIDTH) -> Tensor:
    return normalize(normal((3, count, width), 0, 0, "tokens"))


@kinds
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("count", [1, 16])
def test_values_and_gradients_are_finite(kind: str, design: str, count: int) -> None:
    layer, x = built(kind, design), tokens(count).requires_grad_()
    (layer(x) * normal(x.shape, 0, 0, "weights")).sum().backward()
    for value in (x, *layer.parameters()):
        assert value.grad is not None and value.grad.isfinite().all()


@kinds
@pytest.mark.parametrize("design", ["E", "F"])
def test_it_keeps_unit_magnitude_at_the_start(kind: str, design: str) -> None:
    with torch.no_grad():
        found = magnitude(built(kind, design, 256)(tokens(64, 256)))
    assert float(found.mean()) == pytest.approx(1, abs=0.05)


@kinds
@pytest.mark.parametrize("design", DESIGNS)
def test_folded_it_gives_the_same(kind: str, design: str) -> None:
    layer, x = built(kind, design), tokens()
    with torch.no_grad():
        torch.testing.assert_close(fold(layer)(x), layer(x), rtol=1e-4, atol=1e-5)


PARAMETERS = {  # (weights, biases)
    "silu": lambda w: (8 * w**2, 5 * w),
    "swiglu": lambda w: (3 * w * (8 * w // 3), 2 * (8 * w // 3) + w),
}


@kinds
@pytest.mark.parametrize("width", [32, 64, 96])
def test_it_has_the_parameters_that_its_formula_says(kind: str, width: int) -> None:
    chosen = MLP_KINDS[kind]
    weights, biases = PARAMETERS[chosen.name](width)
    counts = [sum(p.numel() for p in chosen.build(width, DESIGNS[d]).parameters()) for d in "AEF"]
    assert counts == [weights + biases, weights, weights]


@kinds
def test_its_flop_are_those_that_pytorch_counts(kind: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = built(kind, "F"), tokens()[:1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    weights = sum(p.numel() for p in layer.parameters())
    assert counter.get_total_flops() == 2 * weights * 16 + MLP_KINDS[kind].flop(16, WIDTH)


def test_swiglu_is_its_formula() -> None:
    x = tokens()
    for design, divisor in (("A", 1.0), ("F", 0.596)):
        layer = Swiglu().build(WIDTH, DESIGNS[design])
        initialize_weights(layer, torch.Generator().manual_seed(0))
        hidden = layer.fc1(x)
        gate, value = hidden[..., :85], hidden[..., 85:]
        torch.testing.assert_close(layer(x), layer.fc2(F.silu(gate) / divisor * value), rtol=1e-4, atol=1e-5)
