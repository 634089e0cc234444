"""The processes that score together: each draws its batches, and all of them receive every row."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Which process this is, among those that draw one cell's samples together and make the same calls."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all of them have drawn."""
        return self.rank == 0

    def gather(self, rows: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return every process's rows in order of rank. rows: this process's, (lengths[rank], dimensions)."""
        if self.count == 1:
            return [rows]
        padded = rows.new_zeros(max(lengths), rows.shape[1])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.count)]
        torch.distributed.all_gather(gathered, padded)
        return [part[:length] for part, length in zip(gathered, lengths, strict=True)]


ALONE = Ranks()


def all_ranks() -> Ranks:
    """The processes that this one was started with."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ALONE
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
