"""What a guidance rule is, and the registry of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class GuidanceRule(Protocol):
    """One rule with its settings: a frozen dataclass with a `name` and a `doc`."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def combine(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Guide one evaluation; a scale of 1 is never asked for.

        Args:
            conditional: denoised images with their class, (batch, channels, height, width).
            unconditional: the same without it.
            scale: the guidance scale.

        Returns:
            The guided denoised images, of the same shape; each image's depends on that image alone.
        """


GUIDANCE_RULES: Registry[type[GuidanceRule]] = Registry("guidance rule", "mpdit.diffusion.guidance_rules")


def each_image(images: Tensor) -> tuple[int, ...]:
    """The axes of one image, for what is measured of each."""
    return tuple(range(1, images.ndim))
