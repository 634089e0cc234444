"""Blocks compiled ahead of time for sampling on a CPU: a file that later processes run without the compiler.

torch.compile imports its compiler into every process and traces anew there: seconds, each time, that a short evaluation
feels. All blocks are one shape and the weights are inputs, so that one file serves every block, width and batch.
"""

import fcntl
import hashlib
import logging
import platform
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mpdit.model.transformer import Transformer

FEWEST, MOST = 2, 1 << 16  # samples in a batch that the file is for; others run the plain blocks
CODE = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-3  # of the answer's norm: far above rounding, far below what a fault does

Run = Callable[[list[Tensor]], list[Tensor]]

log = logging.getLogger(__name__)


def compile_ahead_of_time(network: Transformer, folder: Path) -> bool:
    """Let every block of a folded network run the file for it in `folder`, made now where there is none.

    The blocks' weights may be changed in place afterwards. False, and the blocks stay as they were, where it cannot be
    made or does not give the plain blocks' answers; the log says why.
    """
    a = network.architecture
    x = torch.randn(FEWEST + 1, (a.resolution // a.patch) ** 2, a.width, generator=torch.Generator().manual_seed(0))
    example = x, x[:, 0].clone()  # (batch, tokens, channels) and a condition: (batch, channels)
    path = folder / f"block-{_key(network)}.so"
    try:
        with _alone(path):
            if not path.exists():
                _make(network.blocks[0], example, path)
        run: Run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
        answers = [_by_file(block, run) for block in network.blocks]
        for block, answer in zip(network.blocks, answers, strict=True):
            _check_agree(answer(*example), block(*example))
    except Exception as error:  # whatever a compiler raises
        path.unlink(missing_ok=True)  # a damaged one is made again next time
        log.warning("not compiled, so slower: %s", (str(error).strip().splitlines() or [type(error).__name__])[0])
        return False
    for block, answer in zip(network.blocks, answers, strict=True):
        block.forward = answer
    return True


def _key(network: Transformer) -> str:
    """A hash of all that the file depends on: our code, the block's shape, PyTorch, the threads, the processor."""
    digest = hashlib.sha256()
    for source in sorted(CODE.rglob("*.py")):
        digest.update(source.read_bytes())
    facts = network.architecture, torch.__version__, torch.get_num_threads(), platform.machine(), _instructions()
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]


def _instructions() -> str:
    """The instruction sets, where Linux tells them: code for one processor ends a process on a lesser one."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _weights(block: nn.Module) -> dict[str, Tensor]:
    return dict(block.named_parameters()) | dict(block.named_buffers())


class _Pure(nn.Module):
    """A block as a function of its weights too."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = [block]  # in a list: its weights are not this module's own

    def forward(self, x: Tensor, condition: Tensor, weights: list[Tensor]) -> Tensor:
        names = _weights(self.block[0])
        answer: Tensor = torch.func.functional_call(
            self.block[0], dict(zip(names, weights, strict=True)), (x, condition)
        )
        return answer


def _make(block: nn.Module, example: tuple[Tensor, Tensor], path: Path) -> None:
    """Compile a block for batches of any size into a file, which appears whole."""
    weights = [weight.detach().clone() for weight in _weights(block).values()]
    batch = torch.export.Dim("batch", min=FEWEST, max=MOST)
    shapes = {"x": {0: batch}, "condition": {0: batch}, "weights": [None] * len(weights)}
    package, partial = path.with_suffix(".partial.pt2"), path.with_suffix(".partial")
    with torch.inference_mode(False), torch.no_grad(), quiet_compiler():
        exported = torch.export.export(_Pure(block), (*example, weights), dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(package))
    with zipfile.ZipFile(package) as archive:  # whose own loader leaves a folder behind where the process is killed
        (library,) = (name for name in archive.namelist() if name.endswith(".so"))
        partial.write_bytes(archive.read(library))
    package.unlink()
    partial.replace(path)


def _by_file(block: nn.Module, run: Run) -> Callable[[Tensor, Tensor], Tensor]:
    """The block's answer, by the file where that is for such a call."""
    plain, weights = block.forward, list(_weights(block).values())
    if not all(weight.is_contiguous() for weight in weights):
        raise ValueError("the weights are not contiguous")

    def answer(x: Tensor, condition: Tensor) -> Tensor:
        if not FEWEST <= len(x) <= MOST or torch.is_autocast_enabled("cpu"):
            return plain(x, condition)
        return run([x.contiguous(), condition.contiguous(), *weights])[0]

    return answer


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While open, no other process makes this file: two trials that begin together wait for one compilation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """While open, the compiler keeps its own doings to itself."""
    chatty = logging.getLogger("torch.utils.cpp_extension")
    before = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatty.setLevel(before)


def _check_agree(found: Tensor, plain: Tensor) -> None:
    if not float((found - plain).norm()) <= TOLERANCE * float(plain.norm()):
        raise ArithmeticError("the compiled block's answer is not the plain one's")
