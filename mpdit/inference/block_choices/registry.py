"""What a choice of blocks is, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from mpdit.errors import input_error
from mpdit.registry import Registry


class BlockChoice(Protocol):
    """One choice with its settings: a frozen dataclass with a `name` and a `doc`."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def left_out(self, depth: int, influences: Callable[[], list[float]]) -> list[int]:
        """Choose the blocks that are left out.

        Args:
            depth: how many blocks there are.
            influences: measures how much each of them does; see `mpdit.inference.block_influence`.

        Returns:
            Their numbers, from 0, ascending.

        Raises:
            InputError: none would be left, or there is no such block.
        """


BLOCK_CHOICES: Registry[type[BlockChoice]] = Registry("choice of blocks", "mpdit.inference.block_choices")


def check_count(count: int, depth: int) -> None:
    """Raise InputError where no block would be left."""
    if count >= depth:
        raise input_error(
            f"of {depth} blocks at most {depth - 1} can be left out",
            given=f"evaluation.blocks: {count} of them",
            allowed=f"1 to {depth - 1}" if depth > 1 else "none: all",
        )
