"""What a part of a modulation is, the registry of all parts, and how a modulation is named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from mpdit.errors import input_error, nearest
from mpdit.model.design import Design
from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Effect(NamedTuple):
    """What one part does to x: (batch, tokens, channels), for each sample of a batch.

    Attributes:
        factor: x is multiplied by it: (batch, 1, channels) or (). The factors of all parts come first, as one product.
        amount: the second argument of the part's `apply`.
    """

    factor: "Tensor | None" = None
    amount: "Tensor | None" = None


@dataclass(frozen=True)
class ModulationPart:
    """One part of a modulation, as scale or gate.

    Attributes:
        name: how a recipe names it; parts are joined by +.
        doc: what it is.
        size: from the network's channels to the number of values that the conditioner makes for this part.
        effect: `effect(amount, gain, design)`, from those values (batch, 1, size) to what is done. gain: the part's
            learned scalar () of a weight-normalised design, 0 at the start; None where the values themselves start
            at 0, as in DiT. Where `design.renormalized` and there is a gain, unit magnitude is kept at any gain.
        apply: `apply(x, effect.amount)`, after the factors; None where a factor is all.
        place: whether the sub-layer's input or its output is changed.
        order: the place in names and in the conditioner's matrix; parts of one order are sorted by name.
    """

    name: str
    doc: str
    size: Callable[[int], int]
    effect: "Callable[[Tensor, Tensor | None, Design], Effect]"
    apply: "Callable[[Tensor, Tensor], Tensor] | None" = None
    place: Literal["input", "output"] = "input"
    order: int = 100

    @property
    def key(self) -> str:
        """Its name in a state dict, where a dot would separate modules."""
        return self.name.replace(".", "_")


MODULATIONS: Registry[ModulationPart] = Registry("modulation", __package__)


def part_names() -> list[str]:
    """Return the names of all parts in canonical order."""
    return [part.name for part in sorted(MODULATIONS, key=lambda part: (part.order, part.name))]


def parse_modulation(text: str) -> tuple[str, ...]:
    """Read a modulation's name: `"gate+scale"` → ("scale", "gate"), each once, in canonical order; `"none"` → ().

    Raises:
        InputError: for an unknown or repeated part.
    """
    given = [] if text.strip() == "none" else [part.strip() for part in text.split("+")]
    for part in given:
        if "." not in part and part not in MODULATIONS:
            names = part_names()
            raise input_error(
                f"unknown modulation {part!r}", given=text, nearest=nearest(part, names), allowed=_allowed(names)
            )
        if given.count(part) > 1:
            raise input_error(f"modulation {part!r} is named twice", given=text, allowed=_allowed(part_names()))
        MODULATIONS[part]  # loads the plug-in of a name with a dot
    return tuple(name for name in part_names() if name in given)


def _allowed(names: Sequence[str]) -> str:
    return "any of " + ", ".join(names) + " joined by +, or none"


def modulation_name(parts: Sequence[str]) -> str:
    """Return the canonical spelling: ("scale", "gate") → "scale+gate", () → "none"."""
    return "+".join(parts) or "none"
