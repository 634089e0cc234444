"""How fast data is read, next to what a training can use: `python benchmarks/data.py [--json]`.

Reading, by one thread: images/s of batches of 256, made ready as training does, from each format, at ImageNet's shapes
(128 pixels, 4×16×16 latents), mapped from a disk whose pages are in memory. What DiT-XS/2 can use: measured where there
is a GPU; else the most that an H100 could, at 40 % of its bf16 peak. Encoding: images/s of `make_latents` next to its
VAE alone, each with random weights (the published VAE's size on a GPU, a tiny one on a CPU).
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from mpdit.data.dataset import Dataset
from mpdit.data.latents import encode, load_vae
from mpdit.data.prepared_images import ImageWriter
from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.edm import Edm
from mpdit.model.architecture import SIZES, Architecture
from mpdit.randomness import Draws
from mpdit.training.step import BatchSampler, accumulate_gradient, apply_gradient, new_state
from pipelines.data.encode import Encoding, make_latents

BATCH, BATCHES, ROUNDS = 256, 12, 3
IMAGES, PIXELS = 4096, 128
H100_BF16_FLOPS, SHARE = 989e12, 0.4  # NVIDIA's dense figure; a share that large kernels reach
XS2_TRAINING_FLOP = 3 * 0.64e9  # an image of 4×16×16: a forward pass, and a backward one of twice its cost
HELD = "latents, bf16, held on the GPU"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def images_a_second(dataset: Dataset) -> float:
    """Batches as training draws them, on the training device."""

    def batches(first: int) -> None:
        for step in range(first, first + BATCHES):
            index = torch.randint(0, len(dataset), (BATCH,))
            dataset.batch(index, Draws(0, step, BATCH, slice(None), DEVICE))
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    batches(0)
    rates = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        batches((number + 1) * BATCHES)
        rates.append(BATCH * BATCHES / (time.perf_counter() - started))
    return median(rates)


def gathered_a_second(dataset: Dataset) -> float:
    """Images/s that are only read: what is left to the CPU where a GPU does the rest."""
    order = torch.randint(0, len(dataset), (40, BATCH))
    dataset.read(order[0])
    started = time.perf_counter()
    for index in order:
        dataset.read(index)
    return order.numel() / (time.perf_counter() - started)


def image_set(folder: Path, count: int, pixels: int) -> Path:
    """A prepared set of noise."""
    random = np.random.default_rng(0)
    with ImageWriter(folder, folder.name, pixels) as writer:
        for _ in range(count):
            writer.add(random.integers(0, 256, (3, pixels, pixels), np.uint8))
        writer.finish([number % 10 for number in range(count)], [str(n) for n in range(10)], "noise", {}, {})
    return folder


def latent_source(folder: Path) -> Path:
    """Latents of noise in the reference's layout."""
    folder.mkdir()
    means, stds = torch.randn(IMAGES, 4, 16, 16), torch.rand(IMAGES, 4, 16, 16) + 0.1
    std = (stds.square().mean((0, 2, 3)) + means.var((0, 2, 3), unbiased=False)).sqrt()
    parts = {"posterior_means": means, "posterior_stds": stds, "labels": torch.arange(IMAGES) % 10}
    for name, part in (parts | {"stats": {"mean": means.mean((0, 2, 3)), "std": std}}).items():
        torch.save(part, folder / f"{name}.pt")
    return folder


def vae(folder: Path) -> Path:
    """Random weights: the published size on a GPU, tiny on a CPU."""
    from diffusers import AutoencoderKL

    widths = (128, 256, 512, 512) if DEVICE == "cuda" else (8, 8, 8, 8)
    layers = 2 if DEVICE == "cuda" else 1
    AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=layers,
        norm_num_groups=min(32, widths[0]),
    ).save_pretrained(folder)
    return folder


def training_rate(dataset: Dataset) -> float:
    """Images/s that DiT-XS/2 takes in when it is trained here, one batch over and over."""
    depth, width, heads = SIZES["XS"]
    shape: dict[str, Any] = {"channels": dataset.channels, "resolution": dataset.resolution, "classes": dataset.classes}
    architecture = Architecture(depth, width, heads, patch=2, modulation="scale+shift+gate", **shape)
    denoiser = build_denoiser(architecture, Edm(1.0), 0).to(DEVICE)
    for block in denoiser.network.blocks:
        block.compile()
    state = new_state(denoiser, (0.9, 0.99))
    batch = BatchSampler(dataset, 0, BATCH, 0.1, device=DEVICE).draw(1)
    loss = DenoisingLoss(denoiser)
    taken = 0.0
    for number in range(60):
        if number == 20:
            torch.cuda.synchronize()
            taken = time.perf_counter()
        accumulate_gradient(loss, batch, precision="bf16")
        apply_gradient(state, 0.01)
    torch.cuda.synchronize()
    return 40 * BATCH / (time.perf_counter() - taken)


def encoding(images: Path, source: Path, folder: Path) -> dict[str, float]:
    """Images/s of the VAE alone, and of a whole encoding."""
    coder, pixels = load_vae(str(source), DEVICE), load_dataset("folder", path=str(images), flips=False)
    batch = pixels.plain(torch.arange(64)).to(DEVICE)
    encode(coder, batch).cpu()
    started = time.perf_counter()
    for _ in range(len(pixels) // 64):
        encode(coder, batch)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    alone = len(pixels) // 64 * 64 / (time.perf_counter() - started)
    times: list[tuple[int, float]] = []
    make_latents(
        str(images),
        folder,
        str(source),
        Encoding(device=DEVICE),
        progress=lambda done, _total: times.append((done, time.perf_counter())),
    )
    (first, begun), (last, ended) = times[0], times[-1]
    return {"the VAE alone": round(alone), "make_latents": round((last - first) / (ended - begun))}


def main() -> None:
    """Make the sets in a temporary folder, time them, print. One thread: others would only wait for each other."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = image_set(root / "images", IMAGES, PIXELS)
        coder, source = vae(root / "vae"), latent_source(root / "theirs")
        for dtype in ("bf16", "fp32"):
            make_latents(str(source), root / dtype, str(coder), Encoding(dtype))
        sets = {
            "folder, 128 pixels, flipped": load_dataset("folder", path=str(images)),
            "latents, bf16": load_dataset("latents", path=str(root / "bf16")),
            "latents, fp32": load_dataset("latents", path=str(root / "fp32")),
            "shapes, 32 pixels, drawn before": load_dataset("shapes", count=IMAGES),
            "digits": load_dataset("digits"),
        }
        sets["shapes, 32 pixels, drawn before"].to("cpu")
        rates = {label: round(images_a_second(dataset)) for label, dataset in sets.items()}
        gathered = {label: round(gathered_a_second(dataset)) for label, dataset in sets.items()}
        if DEVICE == "cuda":
            held = sets["latents, bf16"].to(DEVICE)
            rates[HELD] = round(images_a_second(held))
            needed = round(training_rate(held))
        else:
            needed = round(SHARE * H100_BF16_FLOPS / XS2_TRAINING_FLOP)
        small = image_set(root / "small", 2048 if DEVICE == "cuda" else 512, PIXELS)
        encoded = encoding(small, coder, root / "encoded")
    result = {
        "name": "data",
        "device": DEVICE,
        "ratio": round(rates.get(HELD, gathered["latents, bf16"]) / needed, 2),
        "bar": 1.0,
        "details": {
            "images_per_second": rates,
            "read_only": gathered,
            "needed": needed,
            "needed_is": "measured here" if DEVICE == "cuda" else "an H100 at 40 % of its bf16 peak, not measured",
            "encoding": encoded,
        },
    }
    if "--json" in sys.argv:
        print(json.dumps(result))
        return
    for label, rate in rates.items():
        print(f"{label:<34}{rate:>10,} images/s{f', {gathered[label]:,} only read' if label in gathered else ''}")
    print(f"{'DiT-XS/2 can use':<34}{needed:>10,} images/s ({result['details']['needed_is']})")
    for label, rate in encoded.items():
        print(f"encoding, {label:<24}{rate:>10,} images/s")


if __name__ == "__main__":
    main()
