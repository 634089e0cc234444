"""What a kind of normalisation is, and the registry of them."""

from typing import TYPE_CHECKING, ClassVar, Protocol

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Norm(Protocol):
    """One kind of normalisation with its settings: a frozen dataclass with a `name` and a `doc`.

    It stands before each modulation in the designs whose `layer_norm` is set, and has no parameters, as the
    modulation scales and shifts.
    """

    name: ClassVar[str]
    doc: ClassVar[str]

    def build(self, width: int) -> "nn.Module":
        """Build the layer: x: (batch, tokens, channels) → the same shape."""


NORMS: Registry[type[Norm]] = Registry("norm", "mpdit.model.norm")
