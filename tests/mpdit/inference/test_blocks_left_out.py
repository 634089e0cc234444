"""Which blocks are left out, and that a network without them is the one that never had them."""

import dataclasses

import pytest
import torch
from torch import nn

from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.errors import InputError
from mpdit.inference.block_choices.all import All
from mpdit.inference.block_choices.importance import Importance
from mpdit.inference.block_choices.listed import Listed
from mpdit.inference.block_choices.registry import BlockChoice
from mpdit.inference.block_choices.uniform import Uniform
from mpdit.inference.block_influence import block_influences, without_blocks
from mpdit.model.design import DESIGNS
from mpdit.randomness import normal
from tests.conftest import small_architecture

DEPTH = 4


def unmeasured() -> list[float]:
    raise AssertionError("nothing asks for the influences")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (All(), []),
        (Listed((2,)), [2]),
        (Listed((3, 0, 3)), [0, 3]),
        (Listed(()), []),
        (Uniform(0), []),
        (Uniform(1), [2]),
        (Uniform(2), [1, 3]),
        (Uniform(3), [0, 2, 3]),
    ],
)
def test_blocks_that_are_left_out_by_their_places(choice: BlockChoice, expected: list[int]) -> None:
    assert choice.left_out(DEPTH, unmeasured) == expected


def test_the_blocks_of_least_influence_are_left_out() -> None:
    assert Importance(2).left_out(DEPTH, lambda: [0.3, 0.1, 0.4, 0.2]) == [1, 3]
    assert Importance(1).left_out(DEPTH, lambda: [0.1, 0.1, 0.1, 0.1]) == [0]


@pytest.mark.parametrize("depth", [1, 2, 7, 28])
def test_equal_distances_leave_out_as_many_as_asked(depth: int) -> None:
    for count in range(depth):
        numbers = Uniform(count).left_out(depth, unmeasured)
        assert len(set(numbers)) == count
        assert all(0 <= number < depth for number in numbers)


@pytest.mark.parametrize("choice", [Uniform(4), Importance(5), Listed((0, 1, 2, 3)), Listed((4,)), Listed((-1,))])
def test_a_choice_that_leaves_nothing_or_names_no_block_is_refused(choice: BlockChoice) -> None:
    with pytest.raises(InputError, match=r"at most 3 can be left out|there is no block"):
        choice.left_out(DEPTH, lambda: [0.0] * DEPTH)


def trained(design: str, depth: int = DEPTH) -> Denoiser:
    """A network in which every block says something."""
    denoiser = build_denoiser(small_architecture(design=DESIGNS[design], depth=depth), Edm(sigma_data=0.75), seed=0)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.dim() == 0:
                parameter.fill_(0.7)
            elif design == "A":
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=source))
    return denoiser


@pytest.mark.parametrize("design", ["A", "E", "F"])
def test_a_network_without_blocks_is_the_one_that_never_had_them(design: str) -> None:
    whole = trained(design)
    less = trained(design, depth=2)
    kept = [0, 2]
    less.load_state_dict(
        {name: tensor for name, tensor in whole.state_dict().items() if ".blocks." not in name}
        | {
            f"network.blocks.{at}.{name}": tensor
            for at, number in enumerate(kept)
            for name, tensor in whole.network.blocks[number].state_dict().items()
        }
    )
    inputs = normal((5, 1, 8, 8), 0, 0, "images"), torch.linspace(0.01, 20, 5), torch.arange(5)
    before = whole(*inputs)
    with without_blocks(whole.network, [1, 3]):
        assert torch.equal(whole(*inputs), less(*inputs))
        assert not torch.equal(whole(*inputs), before)
    assert torch.equal(whole(*inputs), before)


def test_the_blocks_are_back_after_an_error(small_denoiser: Denoiser) -> None:
    blocks = list(small_denoiser.network.blocks)
    with pytest.raises(KeyboardInterrupt), without_blocks(small_denoiser.network, [0]):
        raise KeyboardInterrupt
    assert list(small_denoiser.network.blocks) == blocks


def test_a_block_that_does_nothing_has_no_influence() -> None:
    denoiser, digits = trained("A"), load_dataset("digits")
    with torch.no_grad():
        for layer in (denoiser.network.blocks[1].attention, denoiser.network.blocks[1].mlp):
            for parameter in layer.branch.parameters():
                nn.init.zeros_(parameter)
    influences = block_influences(denoiser, digits)
    assert len(influences) == DEPTH
    assert influences[1] == pytest.approx(0, abs=1e-6)
    assert min(influences[:1] + influences[2:]) > 1e-4
    assert Importance(1).left_out(DEPTH, lambda: influences) == [1]
    assert block_influences(denoiser, digits) == influences


def test_settings_are_frozen_values_that_may_be_keys() -> None:
    assert {Listed((1,)), Listed((1,)), Uniform(1)} == {Listed((1,)), Uniform(1)}
    assert dataclasses.replace(Uniform(1), count=2) == Uniform(2)
