"""Rotary positions and norms, by their formulas and by what they keep."""

import pytest
import torch

from mpdit.errors import InputError
from mpdit.model.layers import magnitude, normalize
from mpdit.model.norm.layer import Layer
from mpdit.model.norm.rms import Rms
from mpdit.model.positions.layers.rope2d import Turn
from mpdit.model.positions.rope2d import Rope2d
from mpdit.randomness import normal
from tests.conftest import small_architecture


def heads(grid: int = 5, d: int = 16, purpose: str = "q") -> torch.Tensor:
    return normalize(normal((2, 3, grid**2, d), 0, 0, purpose))


def test_a_turn_is_a_complex_factor_by_row_and_by_column() -> None:
    x = heads()
    pairs = torch.complex(x[..., :8], x[..., 8:])
    frequency = 10000.0 ** (-torch.arange(4) * 2 / 8)
    row, column = torch.arange(25) // 5, torch.arange(25) % 5
    angle = torch.cat([torch.outer(row.float(), frequency), torch.outer(column.float(), frequency)], -1)
    wanted = pairs * torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(Turn(5, 16)(x), torch.cat([wanted.real, wanted.imag], -1), rtol=1e-4, atol=1e-5)


def test_a_turn_keeps_magnitudes_and_leaves_the_first_place() -> None:
    x = heads()
    torch.testing.assert_close(magnitude(Turn(5, 16)(x)), magnitude(x))
    assert torch.equal(Turn(5, 16)(x)[:, :, 0], x[:, :, 0])
    assert torch.equal(Turn(1, 16)(x[:, :, :1]), x[:, :, :1])


def test_logits_depend_on_differences_of_positions_alone() -> None:
    q, k = heads()[:, :, :1].expand(-1, -1, 25, -1), heads(purpose="k")[:, :, :1].expand(-1, -1, 25, -1)
    logits = (Turn(5, 16)(q) @ Turn(5, 16)(k).mT).reshape(2, 3, 5, 5, 5, 5)
    torch.testing.assert_close(logits[:, :, :4, :3, :4, :3], logits[:, :, 1:, 2:, 1:, 2:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[:, :, 0, 0], logits[:, :, 1, 0], atol=1e-2)


def test_heads_that_are_not_pairs_for_rows_and_for_columns_are_refused() -> None:
    with pytest.raises(InputError, match="positions: rope2d, 6 channels a head"):
        small_architecture(width=36, heads=6, positions=Rope2d())


def test_rms_is_layer_norm_of_tokens_whose_mean_is_zero() -> None:
    x = normal((2, 7, 32), 0, 0, "x") * 3
    x = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(Rms().build(32)(x), Layer().build(32)(x))
    torch.testing.assert_close(Rms().build(32)(x + 1), normalize(x + 1), rtol=1e-4, atol=1e-5)
