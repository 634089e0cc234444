"""Every kind of attention: what all have in common, and each beside a slow, plain reference."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.errors import InputError
from mpdit.inference.folding import fold
from mpdit.model.attention.conv import Conv
from mpdit.model.attention.delta import Delta
from mpdit.model.attention.layers.conv import ConvBlock
from mpdit.model.attention.layers.delta import delta_rule
from mpdit.model.attention.layers.linear import linear_mix
from mpdit.model.attention.layers.softmax import softmax
from mpdit.model.attention.layers.window import WindowMixer, is_near, pool
from mpdit.model.attention.linear import Linear
from mpdit.model.attention.softmax import Softmax
from mpdit.model.attention.window import Window
from mpdit.model.depthwise import DepthwiseConv
from mpdit.model.design import DESIGNS
from mpdit.model.layers import initialize_weights, magnitude, normalize
from mpdit.randomness import normal
from tests.mpdit.model.kinds import ATTENTION_KINDS

WIDTH, HEADS = 32, 2
kinds = pytest.mark.parametrize("kind", ATTENTION_KINDS)


def built(kind: Any, design: str, width: int = WIDTH, heads: int = HEADS) -> nn.Module:
    layer = (ATTENTION_KINDS[kind] if isinstance(kind, str) else kind).build(width, heads, DESIGNS[design])
    initialize_weights(layer, torch.Generator().manual_seed(0))
    return layer


def tokens(count: int = 16, width: int = WIDTH, samples: int = 3) -> Tensor:
    return normalize(normal((samples, count, width), 0, 0, "tokens"))


def heads_of(count: int = 16, d: int = 16, purpose: str = "q") -> Tensor:
    return normalize(normal((3, HEADS, count, d), 0, 0, purpose))


@kinds
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("count", [1, 4, 25])
def test_values_and_gradients_are_finite_on_any_grid(kind: str, design: str, count: int) -> None:
    layer, x = built(kind, design), tokens(count).requires_grad_()
    y = layer(x)
    assert y.shape == x.shape
    (y * normal(y.shape, 0, 0, "weights")).sum().backward()
    for name, value in {"x": x, **dict(layer.named_parameters())}.items():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name


@kinds
@pytest.mark.parametrize("count", [1, 16, 64])
def test_in_design_f_what_comes_out_has_unit_magnitude(kind: str, count: int) -> None:
    found = magnitude(built(kind, "F")(tokens(count)))
    torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-3, atol=1e-3)


@kinds
@pytest.mark.parametrize("design", DESIGNS)
def test_folded_it_gives_the_same(kind: str, design: str) -> None:
    layer, x = built(kind, design), tokens()
    with torch.no_grad():
        torch.testing.assert_close(fold(layer)(x), layer(x), rtol=1e-4, atol=1e-5)


@kinds
@pytest.mark.parametrize("design", ["A", "F"])
def test_samples_do_not_see_each_other(kind: str, design: str) -> None:
    layer, x = built(kind, design), tokens()
    torch.testing.assert_close(torch.cat([layer(one[None]) for one in x]), layer(x), rtol=1e-4, atol=1e-5)


@kinds
def test_in_bf16_it_gives_the_same_within_its_precision(kind: str) -> None:
    layer, x = built(kind, "F"), tokens()
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = layer(x).float()
    assert float((rough - exact).square().mean().sqrt()) < 0.1


MAPS = {  # matrices of width², and what stands beside them: (values in a plain design without biases, biases)
    "softmax": (4, lambda w, h, k: 0, lambda w, h, k: 4 * w),
    "linear": (4, lambda w, h, k: w * k.convolution**2, lambda w, h, k: (5 if k.convolution else 4) * w),
    "window": (4, lambda w, h, k: 0, lambda w, h, k: 4 * w),
    "conv": (3, lambda w, h, k: w * k.kernel**2, lambda w, h, k: 4 * w),
    "delta": (4, lambda w, h, k: w * h, lambda w, h, k: 4 * w + h),
}


@kinds
@pytest.mark.parametrize(("width", "heads"), [(32, 2), (64, 4)])
def test_it_has_the_parameters_that_its_formula_says(kind: str, width: int, heads: int) -> None:
    chosen = ATTENTION_KINDS[kind]
    squares, more, biases = MAPS[chosen.name]
    counts = {d: sum(p.numel() for p in chosen.build(width, heads, DESIGNS[d]).parameters()) for d in ("A", "E", "F")}
    weights = squares * width**2 + more(width, heads, chosen)
    assert counts == {"A": weights + biases(width, heads, chosen), "E": weights, "F": weights}


@kinds
def test_its_flop_are_those_that_pytorch_counts(kind: str) -> None:
    """Of matrix products alone; a solution of a triangular system counts half a product."""
    from torch.utils.flop_counter import FlopCounterMode

    chosen, count = ATTENTION_KINDS[kind], 16
    layer, x = built(kind, "F"), tokens(count, samples=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    weights = sum(p.numel() for p in layer.parameters())
    solved = 2 * count**2 * WIDTH if isinstance(chosen, Delta) else 0  # which PyTorch does not count
    filters = sum(
        2 * m.kernel**4 * WIDTH for m in layer.modules() if isinstance(m, DepthwiseConv)
    )  # made of their rows
    bias = sum(2 * m.kernel**2 * WIDTH for m in layer.modules() if isinstance(m, DepthwiseConv))
    weight_sums = 2 * count * WIDTH if isinstance(chosen, Linear) else 0  # the denominators
    expected = 2 * weights * count + chosen.flop(count, WIDTH, HEADS) - solved + filters + bias + weight_sums
    assert counter.get_total_flops() == expected


def test_softmax_is_its_formula() -> None:
    q, k, v = (heads_of(purpose=purpose) for purpose in "qkv")
    torch.testing.assert_close(softmax(q, k, v, q), (q @ k.mT / 4).softmax(-1) @ v)


def test_linear_attention_is_the_matrix_of_its_weights_times_the_values() -> None:
    q, k, v = (heads_of(purpose=purpose) for purpose in "qkv")
    weights = q.relu() @ k.relu().mT
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(linear_mix(q, k, v), weights @ v, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(linear_mix(q, k, torch.ones_like(v)), torch.ones_like(v))


def test_a_query_without_a_positive_feature_reads_nothing() -> None:
    q, k, v = (heads_of(purpose=purpose) for purpose in "qkv")
    q = (-q.abs()).requires_grad_()
    mixed = linear_mix(q, k, v)
    assert mixed.abs().max() == 0
    mixed.sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()


def test_a_window_wider_than_the_grid_is_softmax() -> None:
    wide, plain, x = built(Window(radius=6.0), "F"), built(Softmax(), "F"), tokens()
    torch.testing.assert_close(wide(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("radius", "seen"), [(1.0, 1), (1.5, 9), (2.0, 9), (2.1, 13), (2.9, 25), (2.8, 21)])
def test_a_token_sees_the_tokens_closer_than_the_radius_and_no_other(radius: float, seen: int) -> None:
    near = is_near(7, radius, torch.device("cpu"))
    assert int(near[24].sum()) == seen  # from the middle of 7 × 7
    assert torch.equal(near, near.T)
    layer, x = built(Window(radius=radius), "A"), tokens(49, samples=1).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0, 24].sum(), x)
    assert torch.equal(gradient[0].abs().sum(-1) > 0, near[24])


def test_a_window_with_pooled_keys_is_its_formula() -> None:
    q, k, v = (heads_of(purpose=purpose) for purpose in "qkv")
    found = WindowMixer(1.5, 2, DESIGNS["A"])(q, k, v, q)
    corners = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    keys, values = (torch.cat([part, part[:, :, corners].mean(3)], 2) for part in (k, v))
    logits = q @ keys.mT / 4
    far = ~torch.cat([is_near(4, 1.5, q.device), torch.ones(16, 4, dtype=torch.bool)], 1)
    torch.testing.assert_close(found, logits.masked_fill(far, -math.inf).softmax(-1) @ values, rtol=1e-4, atol=1e-5)


def test_what_is_left_at_the_edge_is_averaged_too() -> None:
    x = heads_of(9)
    assert pool(x, 2).shape == (3, HEADS, 4, 16)
    torch.testing.assert_close(pool(x, 2)[:, :, 3], x[:, :, 8])
    torch.testing.assert_close(pool(x, 5)[:, :, 0], x.mean(2))


@pytest.mark.parametrize("design", ["A", "D", "F"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_depthwise_filter_is_a_sum_over_neighbours(design: str, kernel: int) -> None:
    layer = DepthwiseConv(WIDTH, kernel, DESIGNS[design])
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    x = tokens()
    image, found = x.reshape(3, 4, 4, WIDTH), layer(x).reshape(3, 4, 4, WIDTH)
    weight = layer.filters.weight.reshape(WIDTH, kernel, kernel)
    half = kernel // 2
    for row in range(4):
        for column in range(4):
            total, terms = torch.zeros(3, WIDTH), 0
            for i in range(-half, half + 1):
                for j in range(-half, half + 1):
                    if 0 <= row + i < 4 and 0 <= column + j < 4:
                        total, terms = total + image[:, row + i, column + j] * weight[:, half + i, half + j], terms + 1
            if design == "F":
                total = total / kernel * (kernel**2 / terms) ** 0.5
            elif design == "D":
                total = total / kernel
            else:
                total = total + layer.filters.bias
            torch.testing.assert_close(found[:, row, column], total, rtol=1e-4, atol=1e-5)


def test_a_filter_of_uncorrelated_tokens_keeps_their_magnitude_also_at_the_edge() -> None:
    layer = DepthwiseConv(512, 3, DESIGNS["F"])
    initialize_weights(layer, torch.Generator().manual_seed(0))
    found = layer(tokens(16, 512, samples=64)).square().mean((0, 2)).sqrt()
    torch.testing.assert_close(found, torch.ones(16), atol=0.03, rtol=0)


def test_the_conv_block_is_its_formula_in_dit_and_in_f() -> None:
    x = tokens()
    for design in "AF":
        layer = built(Conv(), design)
        assert isinstance(layer, ConvBlock)
        hidden = layer.filter(layer.fc(x))
        if design == "A":
            hidden = F.gelu(hidden, approximate="tanh")
            y = layer.proj(hidden * layer.gate(hidden.mean(1, keepdim=True)).sigmoid())
        else:
            hidden = F.silu(hidden) / 0.596
            gate = layer.gate(normalize(hidden.mean(1, keepdim=True))).sigmoid() / 0.5416
            y = normalize(layer.proj(hidden * gate))
        torch.testing.assert_close(layer(x), y)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_delta_rule_of_all_tokens_at_once_is_the_recurrence(backwards: bool) -> None:
    q, k, v = (heads_of(9, purpose=purpose).double() for purpose in "qkv")
    k, rate = k / 4, normal((3, HEADS, 9, 1), 0, 0, "rate").sigmoid().double()
    memory, read = torch.zeros(3, HEADS, 16, 16, dtype=torch.float64), torch.zeros_like(v)
    for t in reversed(range(9)) if backwards else range(9):
        key, value = k[:, :, t, :, None], v[:, :, t, :, None]
        memory = memory + rate[:, :, t, :, None] * (value - memory @ key) @ key.mT
        read[:, :, t] = (memory @ q[:, :, t, :, None])[..., 0]
    torch.testing.assert_close(delta_rule(q, k, v, rate)[backwards].double(), read, rtol=1e-4, atol=1e-5)


def test_at_rate_1_a_token_reads_its_own_value_exactly() -> None:
    k, v = heads_of(purpose="k") / 4, heads_of(purpose="v")
    for read in delta_rule(k, k, v, torch.ones(3, HEADS, 16, 1)):
        torch.testing.assert_close(read, v, rtol=1e-3, atol=1e-4)


def test_with_orthogonal_keys_the_delta_rule_is_a_plain_sum() -> None:
    q, v, k = heads_of(purpose="q"), heads_of(purpose="v"), torch.eye(16).expand(3, HEADS, 16, 16)
    found, _ = delta_rule(q, k, v, torch.full((3, HEADS, 16, 1), 0.5))
    torch.testing.assert_close(found, 0.5 * (q @ k.mT).tril() @ v, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Linear(convolution=4), Conv(kernel=2)])
def test_a_filter_without_a_middle_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="has a middle"):
        kind.check(DESIGNS["F"])
