"""Blocks run from a file: the plain blocks' answers, for any batch and any weights, without the compiler."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.inference import ahead_of_time
from mpdit.inference.ahead_of_time import compile_ahead_of_time
from mpdit.inference.folding import fold, refold
from mpdit.model.design import DESIGNS, Design
from tests.conftest import small_architecture

TOGETHER = pytest.mark.xdist_group("ahead of time")  # of compiled files


def denoiser_of(design: Design, seed: int = 0) -> Denoiser:
    """One whose gains, biases and weights are not those of the start, at which most of them are 0."""
    denoiser = build_denoiser(small_architecture(design=design), Edm(sigma_data=0.75), seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return denoiser


def inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count)),
        torch.ones(1),
        torch.arange(count),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


def no_compiler(*_: Any) -> None:
    raise RuntimeError("no compiler")


@pytest.mark.slow
@TOGETHER
@pytest.mark.parametrize("step", ["A", "F"])
@torch.inference_mode()
def test_one_file_serves_every_block_batch_and_weights(
    step: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = DESIGNS[step]
    first, other = denoiser_of(design), denoiser_of(design, seed=1)
    folded = fold(first)
    folded(*inputs(1))
    assert compile_ahead_of_time(folded.network, folder)
    plain = [fold(first), fold(other)]
    for count in (1, 2, 3, 10):
        torch.testing.assert_close(folded(*inputs(count))[0], plain[0](*inputs(count))[0], rtol=1e-4, atol=1e-5)
    refold(folded, other)
    torch.testing.assert_close(folded(*inputs(5))[0], plain[1](*inputs(5))[0], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(ahead_of_time, "_compile", no_compiler)
    again = fold(other)
    again(*inputs(1))
    assert compile_ahead_of_time(again.network, folder)
    assert torch.equal(again(*inputs(5))[0], folded(*inputs(5))[0])


@pytest.mark.slow
@TOGETHER
def test_another_process_imports_no_compiler(folder: Path) -> None:
    script = """
import sys, torch
from pathlib import Path
from tests.mpdit.inference.test_ahead_of_time import compile_ahead_of_time, denoiser_of, fold, inputs, DESIGNS
torch.set_num_threads(1)
with torch.inference_mode():
    folded = fold(denoiser_of(DESIGNS["F"]))
    folded(*inputs(1))
    print(compile_ahead_of_time(folded.network, Path(sys.argv[1])), "torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout == "True False\n"


@torch.inference_mode()
def test_without_a_compiler_the_blocks_stay_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ahead_of_time, "_compile", no_compiler)
    folded = fold(denoiser_of(DESIGNS["F"]))
    with caplog.at_level(logging.WARNING):
        assert not compile_ahead_of_time(folded.network, tmp_path)
    assert "not compiled, so slower: no compiler" in caplog.text
    assert all("forward" not in vars(block) for block in folded.network.blocks)


@torch.inference_mode()
def test_a_damaged_file_is_not_used_and_made_again_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folded = fold(denoiser_of(DESIGNS["F"]))
    monkeypatch.setattr(ahead_of_time, "_compile", lambda block, example, path: path.write_bytes(b"no library"))
    assert not compile_ahead_of_time(folded.network, tmp_path)
    assert not list(tmp_path.glob("*.so"))
    assert "not compiled, so slower" in caplog.text


def test_what_the_file_depends_on_is_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    design = DESIGNS["F"]
    network = denoiser_of(design).network
    wider = build_denoiser(small_architecture(width=64, design=design), Edm(sigma_data=0.75), 0).network
    keys = [ahead_of_time._key(network), ahead_of_time._key(wider)]
    assert ahead_of_time._key(denoiser_of(design, seed=1).network) == keys[0]
    torch.set_num_threads(2)
    keys.append(ahead_of_time._key(network))
    monkeypatch.setattr(ahead_of_time, "_instructions", lambda: "of another processor")
    keys.append(ahead_of_time._key(network))
    assert len(set(keys)) == 4
