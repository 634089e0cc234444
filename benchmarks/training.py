"""Training speed on 16×16×4 latents: `python benchmarks/training.py [--json] [MODEL …]`.

    MODEL           XS/2, S/4, S/2, B/4; all by default
    --batch N       64 on a CPU, 256 on a GPU
    --steps N       timed steps of each (10)
    --module P:F    also time another project, alternating with ours in the same process: file P, callable F,
                    called as F(size="XS", patch=2, batch=64, device="cpu"), gives a function that takes one whole
                    training step on (images, labels) and returns its loss
    --precision P   fp32 or bf16 (what `auto` would choose)
    --eager         do not compile ours

A step is everything that a training does between two batches: loss, gradient, Adam, forced weight normalisation and
both EMAs. FLOP are counted by torch for one forward and backward pass, its peak is that of a matrix product of 4096³
(2048³ on a CPU) in the same precision. Ratios are of medians.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.ddpm import Ddpm
from mpdit.inference.compilation import compile_blocks
from mpdit.model.architecture import SIZES, Architecture
from mpdit.randomness import normal
from mpdit.training.step import Batch, accumulate_gradient, apply_gradient, new_state

MODELS = ("XS/2", "S/4", "S/2", "B/4")
BARS = {"cpu": 2.0, "cuda": 3.0}
Step = Callable[[Tensor, Tensor], Any]


def ours(model: str, batch: int, device: torch.device, precision: str, compiled: bool) -> Step:
    """One training step of ours, as pipelines/training/trainer.py takes it."""
    denoiser = build_denoiser(architecture(model), Ddpm(1.0), seed=0).to(device)
    state, loss = new_state(denoiser, (0.9, 0.99)), DenoisingLoss(denoiser)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        noise = normal((len(images), 1 + images[0].numel()), 0, state.step + 1, "noise", device)
        value = accumulate_gradient(loss, Batch(images, labels, noise), precision=precision)
        apply_gradient(state, 0.01)
        return value

    if compiled:
        images, labels = data(batch, device)
        noise = normal((batch, 1 + images[0].numel()), 0, 0, "noise", device)

        def gradients() -> list[Tensor]:
            accumulate_gradient(loss, Batch(images, labels, noise), precision=precision)
            found = [p.grad.clone() for p in denoiser.parameters() if p.grad is not None]
            denoiser.zero_grad()
            return found

        compile_blocks(denoiser, device, gradients)
    return step


def architecture(model: str) -> Architecture:
    """The published network of that name, with the modulation of AdaLN."""
    size, patch = model.split("/")
    depth, width, heads = SIZES[size]
    shape: dict[str, Any] = {"channels": 4, "resolution": 16, "classes": 1000, "learned_variance": True}
    return Architecture(depth, width, heads, int(patch), "scale+shift+gate", **shape)


def data(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Made-up latents: (batch, 4, 16, 16) and labels (batch,)."""
    return normal((batch, 4, 16, 16), 0, 0, "images").to(device), (torch.arange(batch) % 1000).to(device)


def flop(model: str, batch: int) -> int:
    """Of one forward and backward pass over a batch."""
    loss = DenoisingLoss(build_denoiser(replace(architecture(model)), Ddpm(1.0), seed=0))
    images, labels = data(1, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        loss(images, labels, normal((1, 1025), 0, 0, "noise")).backward()
    return int(counter.get_total_flops()) * batch


def peak(device: torch.device, precision: str) -> float:
    """FLOP/s of the best of ten large matrix products."""
    size = 4096 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2 * size**3 / min(seconds(lambda: a @ a, device) for _ in range(10))


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """The wall time of one call, until the device is done."""
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def load(place: str) -> Callable[..., Step]:
    """The callable of "file.py:name"."""
    path, name = place.rsplit(":", 1)
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        sys.exit(f"--module {place}: no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)  # type: ignore[no-any-return]


def timed(steps: dict[str, Step], model: str, batch: int, count: int, device: torch.device) -> dict[str, Any]:
    """Alternate the steps; {name: {"ms", "images_per_second", "peak_gb"}}."""
    images, labels = data(batch, device)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, float] = {}
    for step in steps.values():
        for _ in range(3):
            step(images, labels)
    for _ in range(count):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken[name].append(seconds(lambda step=step: step(images, labels), device))
            if device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated() / 1e9
    return {
        name: {
            "ms": round(1000 * median(times), 2),
            "images_per_second": round(batch / median(times), 1),
            "peak_gb": round(memory[name], 2) if memory else None,
        }
        for name, times in taken.items()
    }


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--module")
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = asked.batch or (256 if device.type == "cuda" else 64)
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    precision = asked.precision or ("bf16" if fast else "fp32")
    torch.backends.cuda.matmul.allow_tf32 = True
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    rows: dict[str, Any] = {}
    best = peak(device, precision)
    for model in asked.models:
        steps = {"ours": ours(model, batch, device, precision, not asked.eager)}
        if asked.module:
            size, patch = model.split("/")
            steps["other"] = load(asked.module)(size=size, patch=int(patch), batch=batch, device=device.type)
        rows[model] = timed(steps, model, batch, asked.steps, device)
        rows[model]["ours"]["share_of_peak"] = round(flop(model, batch) / (rows[model]["ours"]["ms"] / 1000) / best, 3)
        if asked.module:
            rows[model]["ratio"] = round(rows[model]["other"]["ms"] / rows[model]["ours"]["ms"], 3)
        if not asked.json:
            print(model, rows[model], flush=True)
    details = {"batch": batch, "precision": precision, "peak_tflops": round(best / 1e12, 3), "models": rows}
    ratio = rows[asked.models[0]].get("ratio")
    result = {"name": "training", "device": name, "ratio": ratio, "bar": BARS[device.type], "details": details}
    if asked.json:
        print(json.dumps(result))
    else:
        print(f"{name}, batch {batch}, {precision}; matrix product {best / 1e12:.3f} TFLOP/s")


if __name__ == "__main__":
    main()
