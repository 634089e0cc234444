import itertools

import pytest
import torch
from torch import nn

from mpdit.errors import BadInput
from mpdit.layers import initialize_weights, magnitude
from mpdit.modulation import KINDS, Conditioner, Modulate, gate, modulation_name, offset, parse_modulation, rotate
from mpdit.randomness import normal

SUBSETS = [kinds for size in range(5) for kinds in itertools.combinations(KINDS, size)]


def conditioner(kinds: tuple[str, ...], gain: float = 0.0) -> Conditioner:
    made = Conditioner(64, kinds)
    initialize_weights(made, torch.Generator().manual_seed(0))
    for parameter in made.gains.values():
        nn.init.constant_(parameter, gain)
    return made


def tokens() -> torch.Tensor:
    return normal((32, 16, 64), 0, 0, "tokens")


def condition() -> torch.Tensor:
    return normal((32, 64), 0, 0, "condition")


@pytest.mark.parametrize("kinds", SUBSETS)
def test_any_order_has_one_canonical_name(kinds: tuple[str, ...]) -> None:
    for order in itertools.permutations(kinds):
        assert parse_modulation("+".join(order) or "none") == kinds
    assert modulation_name(kinds) == ("+".join(kinds) or "none")


@pytest.mark.parametrize(
    ("text", "says"), [("scale+shfit", "shift"), ("scale+scale", "twice"), ("", "allowed"), ("+", "any")]
)
def test_a_typo_is_refused_with_the_nearest_name(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_modulation(text)


def test_rotation_keeps_every_token_norm() -> None:
    x, angle = tokens(), normal((32, 1, 32), 0, 0, "angle") * 3
    torch.testing.assert_close(rotate(x, angle).norm(dim=-1), x.norm(dim=-1))


def test_rotation_is_undone_by_the_opposite_angle() -> None:
    x, angle = tokens(), normal((32, 1, 32), 0, 0, "angle")
    torch.testing.assert_close(rotate(rotate(x, angle), -angle), x)


def test_rotation_keeps_inner_products() -> None:
    x, y, angle = tokens(), tokens().flip(0), normal((1, 1, 32), 0, 0, "angle")
    torch.testing.assert_close((rotate(x, angle) * rotate(y, angle)).sum(-1), (x * y).sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kinds", SUBSETS)
def test_every_modulation_starts_as_the_identity(kinds: tuple[str, ...]) -> None:
    made, x = conditioner(kinds), tokens()
    amounts = made(condition())
    torch.testing.assert_close(Modulate()(x, amounts, made.gains), x)
    torch.testing.assert_close(gate(x, amounts, made.gains), x)


@pytest.mark.parametrize("kinds", SUBSETS)
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_every_modulation_keeps_unit_magnitude_at_any_gain(kinds: tuple[str, ...], gain: float) -> None:
    made = conditioner(kinds, gain)
    amounts = made(condition())
    for y in (Modulate()(tokens(), amounts, made.gains), gate(tokens(), amounts, made.gains)):
        assert float(y.detach().square().mean().sqrt()) == pytest.approx(1, abs=0.08)


def test_offset_is_its_formula() -> None:
    x, b, g = tokens(), normal((32, 1, 64), 0, 0, "b"), torch.tensor(0.7)
    torch.testing.assert_close(offset(x, b, g), (x + 0.7 * b) / (1 + 0.7**2) ** 0.5)


def test_amounts_have_unit_magnitude() -> None:
    for amount in conditioner(("scale", "shift", "rotation"))(condition()).values():
        assert float(magnitude(amount.detach()).mean()) == pytest.approx(1, abs=0.1)
