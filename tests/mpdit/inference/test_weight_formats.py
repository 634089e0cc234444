"""Rounded weights: how far they may be from those that were trained."""

import pytest
import torch

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.inference.folding import FoldedLinear, fold
from mpdit.inference.rounding import round_blocks
from mpdit.inference.weight_formats.bf16 import Bf16
from mpdit.inference.weight_formats.fp32 import Fp32
from mpdit.inference.weight_formats.int4 import Int4
from mpdit.inference.weight_formats.int8 import Int8
from mpdit.inference.weight_formats.registry import WEIGHT_FORMATS, WeightFormat
from mpdit.model.design import DESIGNS
from mpdit.randomness import normal
from tests.conftest import small_architecture

LARGEST = {Int8: 127, Int4: 7}


@pytest.mark.parametrize("weight_format", [Int8(), Int8(group=16), Int4(), Int4(group=0), Int4(group=7), Int4(group=1)])
def test_no_weight_moves_by_more_than_half_a_step(weight_format: Int8 | Int4) -> None:
    weight = normal((24, 96), 0, 0, "weight") * torch.logspace(-6, 6, 24).unsqueeze(1)
    rounded = weight_format.rounded(weight)
    assert rounded.shape == weight.shape
    largest, group = LARGEST[type(weight_format)], weight_format.group or 96
    for part, found in zip(weight.split(group, dim=1), rounded.split(group, dim=1), strict=True):
        scale = part.abs().amax(1, keepdim=True) / largest
        assert ((part - found).abs() <= scale / 2 * (1 + 1e-5)).all()
        steps = found / scale
        assert (steps - steps.round()).abs().max() < 1e-3
        assert steps.abs().max() <= largest + 1e-3


@pytest.mark.parametrize(("weight_format", "largest"), [(Int8(), 127), (Int4(group=0), 7), (Int4(group=5), 7)])
def test_whole_numbers_up_to_the_largest_are_kept_exactly(weight_format: WeightFormat, largest: int) -> None:
    weight = torch.arange(-largest, largest + 1).repeat(3, 1).float()
    weight = weight[:, torch.randperm(2 * largest + 1, generator=torch.Generator().manual_seed(0))]
    for part in weight.split(5, dim=1):
        part[:, 0] = largest  # so that every group has the scale 1
    assert torch.equal(weight_format.rounded(weight), weight)


def test_rounding_twice_is_rounding_once() -> None:
    weight = normal((8, 64), 0, 0, "weight")
    for weight_format in (Fp32(), Bf16(), Int8(), Int4()):
        once = weight_format.rounded(weight)
        torch.testing.assert_close(weight_format.rounded(once), once, rtol=1e-6, atol=0)


def test_the_error_of_rows_of_unit_magnitude_is_that_of_the_reference() -> None:
    """0.7 % at 8 bits, 11 to 14 % at 4 bits a row, 9.7 % in groups of 32, by the facts of this axis."""
    weight = normal((512, 512), 0, 0, "weight")

    def error(weight_format: WeightFormat) -> float:
        return float((weight_format.rounded(weight) - weight).square().mean().sqrt())

    assert error(Int8()) == pytest.approx(0.007, rel=0.1)
    assert error(Int4(group=32)) == pytest.approx(0.097, rel=0.1)
    assert 0.11 < error(Int4(group=0)) < 0.14
    assert error(Bf16()) < 0.002
    assert error(Fp32()) == 0


def test_a_row_of_zeros_stays_one() -> None:
    for kind in WEIGHT_FORMATS:
        rounded = kind().rounded(torch.zeros(2, 40))
        assert torch.equal(rounded, torch.zeros(2, 40))


@pytest.mark.parametrize("design", DESIGNS)
def test_the_blocks_alone_are_rounded(design: str) -> None:
    architecture = small_architecture("scale+shift+rotation+gate", design=DESIGNS[design])
    denoiser = build_denoiser(architecture, Edm(sigma_data=0.75), seed=0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.dim() == 0:
                parameter.fill_(0.7)  # gains start at 0, where nothing is to be seen
    plain, rounded = fold(denoiser), fold(denoiser)
    round_blocks(rounded, Int4())
    pairs = zip(plain.named_parameters(), rounded.parameters(), strict=True)
    moved = {name for (name, before), after in pairs if not torch.equal(before, after)}
    matrices = {name for name, weight in rounded.network.blocks.named_parameters() if weight.ndim == 2 and weight.any()}
    assert moved == {f"network.blocks.{name}" for name in matrices}
    if any(isinstance(part, FoldedLinear) for part in rounded.modules()):
        inputs = normal((4, 1, 8, 8), 0, 0, "images"), torch.linspace(0.1, 5, 4), torch.arange(4)
        assert 0 < float((plain(*inputs) - rounded(*inputs)).abs().max()) < 0.5
