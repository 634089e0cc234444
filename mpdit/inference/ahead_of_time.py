"""Blocks compiled ahead of time for sampling on a CPU: a file that later processes run without the compiler.

torch.compile imports its compiler into every process and traces again there, which takes seconds, too long for a short
evaluation. All blocks have one shape and the weights are inputs, so that one file serves every block, EMA and batch.
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

FEWEST, MOST = 2, 1 << 16  # samples in a batch that the file can run; others run the plain blocks
CODE = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-3  # of the output's norm: far above rounding, far below the effect of a fault

Run = Callable[[list[Tensor]], list[Tensor]]

log = logging.getLogger(__name__)


def compile_ahead_of_time(network: Transformer, folder: Path) -> bool:
    """Make every block of a folded network run compiled code from a file in `folder`, compiled now if there is none.

    The blocks' weights may be changed in place afterwards.

    Returns:
        Whether they do. Where the file cannot be compiled, or its outputs are not those of the plain blocks, the blocks
        stay as they were and the log says why.
    """
    a = network.architecture
    x = torch.randn(FEWEST + 1, (a.resolution // a.patch) ** 2, a.width, generator=torch.Generator().manual_seed(0))
    example = x, x[:, 0].clone()  # (batch, tokens, channels) and a condition: (batch, channels)
    path = folder / f"block-{_key(network)}.so"
    try:
        with _locked(path):
            if not path.exists():
                _compile(network.blocks[0], example, path)
        run: Run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
        forwards = [_compiled_forward(block, run) for block in network.blocks]
        for block, forward in zip(network.blocks, forwards, strict=True):
            _check_equal(forward(*example), block(*example))
    except Exception as error:  # whatever a compiler raises
        path.unlink(missing_ok=True)  # a damaged one is compiled again next time
        log.warning("not compiled, so slower: %s", (str(error).strip().splitlines() or [type(error).__name__])[0])
        return False
    for block, forward in zip(network.blocks, forwards, strict=True):
        block.forward = forward
    return True


def _key(network: Transformer) -> str:
    """Return a hash of all that the file depends on: our code, the block's shape, PyTorch, threads, the processor."""
    digest = hashlib.sha256()
    for source in sorted(CODE.rglob("*.py")):
        digest.update(source.read_bytes())
    facts = network.architecture, torch.__version__, torch.get_num_threads(), platform.machine(), _instructions()
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]


def _instructions() -> str:
    """Return the processor's instruction sets, where Linux lists them: compiled code would crash without them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _weights(block: nn.Module) -> dict[str, Tensor]:
    return dict(block.named_parameters()) | dict(block.named_buffers())


class _Pure(nn.Module):
    """A block as a function of its inputs and its weights."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = [block]  # in a list: its weights are not this module's own

    def forward(self, x: Tensor, condition: Tensor, weights: list[Tensor]) -> Tensor:
        names = _weights(self.block[0])
        by_name = dict(zip(names, weights, strict=True))
        output: Tensor = torch.func.functional_call(self.block[0], by_name, (x, condition))
        return output


def _compile(block: nn.Module, example: tuple[Tensor, Tensor], path: Path) -> None:
    """Compile a block for batches of any size into a file, which is complete or not there."""
    weights = [weight.detach().clone() for weight in _weights(block).values()]
    batch = torch.export.Dim("batch", min=FEWEST, max=MOST)
    shapes = {"x": {0: batch}, "condition": {0: batch}, "weights": [None] * len(weights)}
    package, partial = path.with_suffix(".partial.pt2"), path.with_suffix(".partial")
    with torch.inference_mode(False), torch.no_grad(), quiet_compiler():
        exported = torch.export.export(_Pure(block), (*example, weights), dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(package))
    with zipfile.ZipFile(package) as archive:  # its own loader leaves a folder behind where the process is killed
        (library,) = (name for name in archive.namelist() if name.endswith(".so"))
        partial.write_bytes(archive.read(library))
    package.unlink()
    partial.replace(path)


def _compiled_forward(block: nn.Module, run: Run) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a forward pass that runs the compiled code where that is possible, else the plain block."""
    plain, weights = block.forward, list(_weights(block).values())
    if not all(weight.is_contiguous() for weight in weights):
        raise ValueError("the weights are not contiguous")

    def forward(x: Tensor, condition: Tensor) -> Tensor:
        if not FEWEST <= len(x) <= MOST or torch.is_autocast_enabled("cpu"):
            return plain(x, condition)
        return run([x.contiguous(), condition.contiguous(), *weights])[0]

    return forward


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """While open, no other process compiles this file: two trials that begin together wait for one compilation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """While open, the compiler prints no warnings and logs errors only."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level_before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level_before)


def _check_equal(compiled: Tensor, plain: Tensor) -> None:
    if not float((compiled - plain).norm()) <= TOLERANCE * float(plain.norm()):
        raise ArithmeticError("the compiled block's output is not the plain one's")
