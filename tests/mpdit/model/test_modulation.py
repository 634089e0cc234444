import itertools

import pytest
import torch
from torch import nn

from mpdit.errors import InputError
from mpdit.model.conditioner import AdaLNZero, Modulate, MPConditioner, conditioner
from mpdit.model.design import DESIGNS, Design, choose_design
from mpdit.model.layers import amplification, initialize_weights
from mpdit.model.modulation.registry import (
    MODULATIONS,
    Effect,
    ModulationPart,
    modulation_name,
    parse_modulation,
    part_names,
)
from mpdit.model.modulation.rotation import rotate
from mpdit.randomness import normal

SUBSETS = [kinds for size in range(len(part_names()) + 1) for kinds in itertools.combinations(part_names(), size)]


def with_gain(kinds: tuple[str, ...], gain: float, design: str = "F", variant: str | None = None) -> MPConditioner:
    made = MPConditioner(64, kinds, choose_design(design, variant=variant))
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
    with pytest.raises(InputError, match=says):
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
@pytest.mark.parametrize("design", DESIGNS)
def test_every_modulation_starts_as_the_identity_and_gates_of_plain_sums_start_closed(
    kinds: tuple[str, ...], design: str
) -> None:
    made, x = conditioner(DESIGNS[design], 64, kinds), tokens()
    initialize_weights(made, torch.Generator().manual_seed(0))
    does = made(condition())
    torch.testing.assert_close(Modulate()(x, does), x)
    torch.testing.assert_close(does.output.of(x), torch.zeros_like(x) if "gate" in kinds and design not in "EF" else x)


@pytest.mark.parametrize("kinds", SUBSETS)
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_every_modulation_keeps_unit_magnitude_at_any_gain(kinds: tuple[str, ...], gain: float) -> None:
    does = with_gain(kinds, gain)(condition())
    for y in (Modulate()(tokens(), does), does.output.of(tokens())):
        assert float(y.detach().square().mean().sqrt()) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(("design", "variant"), [("E", None), ("E", "map-dit"), ("F", "map-dit")])
def test_the_paper_and_its_code_let_scale_and_gate_grow(design: str, variant: str | None) -> None:
    does = with_gain(("scale", "gate"), 1.0, design, variant)(condition())
    for y in (Modulate()(tokens(), does), does.output.of(tokens())):
        assert float(y.detach().square().mean().sqrt()) == pytest.approx(2**0.5, abs=0.1)


def test_each_part_is_its_formula() -> None:
    x, g = tokens(), 0.7
    made = with_gain(("scale", "shift", "rotation", "gate"), g)
    s, b, angle, o = made.project(nn.functional.silu(condition()) / 0.596).unsqueeze(1).split([64, 64, 32, 64], dim=-1)
    keep = (1 + g**2) ** -0.5
    wanted = rotate((x * (1 + g * s) * keep + g * b) * keep, g * angle)
    does = made(condition())
    torch.testing.assert_close(Modulate()(x, does), wanted)
    torch.testing.assert_close(does.output.of(x), x * (1 + g * o) * keep)
    torch.testing.assert_close(amplification(o, torch.tensor(g)), (1 + g * o) * keep)


def test_adaln_zero_is_its_formula() -> None:
    made, x = AdaLNZero(64, ("scale", "shift", "gate"), DESIGNS["A"]), tokens()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    s, b, g = made.project(nn.functional.silu(condition())).unsqueeze(1).chunk(3, dim=-1)
    torch.testing.assert_close(Modulate()(x, made(condition())), x * (1 + s) + b)
    torch.testing.assert_close(made(condition()).output.of(x), x * g)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_part_of_a_plug_in_follows_ours(design: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def effect(amount: torch.Tensor, gain: torch.Tensor | None, _design: Design) -> Effect:
        return Effect(amount=amount if gain is None else gain * amount)

    part = ModulationPart("theirs.bias", "one number", lambda _channels: 1, effect, apply=torch.add)
    monkeypatch.setitem(MODULATIONS._kinds, part.name, part)
    assert parse_modulation("theirs.bias+gate+scale") == ("scale", "gate", "theirs.bias")
    made, x = conditioner(DESIGNS[design], 64, ("scale", "theirs.bias")), tokens()
    initialize_weights(made, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(condition()).input.of(x), x)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    changed = made(condition())
    torch.testing.assert_close(changed.input.of(x), x * changed.input.factor + changed.input.steps[0][1])


def test_a_part_of_a_missing_plug_in_is_refused() -> None:
    with pytest.raises(InputError, match="the plug-in 'absent' is not installed"):
        parse_modulation("scale+absent.bias")
