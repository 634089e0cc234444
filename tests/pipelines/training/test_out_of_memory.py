import weakref

import pytest
import torch

from mpdit.diffusion.denoiser import Denoiser
from pipelines.recipe import Recipe
from pipelines.training.out_of_memory import OutOfMemory, explained_out_of_memory


def test_the_exception_does_not_keep_what_filled_the_memory(small_recipe: Recipe, small_denoiser: Denoiser) -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []

    def fill() -> None:
        tensor = torch.zeros(4)
        tensors.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    with (
        pytest.raises(OutOfMemory, match="8 samples at once"),
        explained_out_of_memory(small_recipe, small_denoiser, 8),
    ):
        fill()
    assert tensors[0]() is None


def test_another_error_stays_what_it_is(small_recipe: Recipe, small_denoiser: Denoiser) -> None:
    with pytest.raises(RuntimeError, match="shape"), explained_out_of_memory(small_recipe, small_denoiser, 8):
        raise RuntimeError("shape mismatch")
