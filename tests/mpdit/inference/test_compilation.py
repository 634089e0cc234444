import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser
from mpdit.inference.compilation import compilation_modes, compile_blocks
from mpdit.model.transformer import Block

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_graphs_are_for_small_networks_on_a_gpu_whose_step_is_one_pass() -> None:
    assert compilation_modes(256, CUDA, one_pass=True) == ["reduce-overhead", "default"]
    for settings in ((768, CUDA, True), (256, CUDA, False), (256, CPU, True)):
        assert compilation_modes(*settings) == ["default"]


def test_compiled_code_with_other_gradients_is_not_used(
    small_denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrongly(block: Block, **_: Any) -> None:  # stands for a compiler with a fault
        block._compiled_call_impl = block._call_impl

    calls = iter([1.0, 1.0, 1.2])
    monkeypatch.setattr(Block, "compile", wrongly)
    with caplog.at_level(logging.WARNING):
        used = compile_blocks(small_denoiser, CPU, lambda: [torch.tensor([next(calls)])])
    assert used is None
    assert "not the plain ones" in caplog.text
    assert all(block._compiled_call_impl is None for block in small_denoiser.network.blocks)


def test_compiled_code_with_equal_gradients_is_used(small_denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "compile", lambda block, **_: setattr(block, "_compiled_call_impl", block._call_impl))

    def gradients() -> list[Tensor]:
        return [torch.ones(3)]

    assert compile_blocks(small_denoiser, CPU, gradients) == "default"
    assert all(block._compiled_call_impl is not None for block in small_denoiser.network.blocks)
