"""Latents: images that a VAE has encoded once, as mean and standard deviation of its posterior.

A set is a folder, mapped into memory; training draws (μ + σε − mean)/std and does not need the VAE:

    latents-00000.bin …   bf16 or fp32 (SHARD or fewer, 2, channels, side, side): μ, then σ      labels.bin   int64
    vae/                  the VAE, which decodes samples when they are scored      features/      set.json
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mpdit.data.dataset import Dataset, Stored
from mpdit.data.prepared_images import FEATURES, LABELS, MANIFEST, load_image_folder, map_file
from mpdit.data.registry import DATASETS, DatasetKind
from mpdit.errors import input_error
from mpdit.lazy_modules import lazy_module
from mpdit.randomness import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

VERSION = 1
SHARD = 8192  # samples; what is lost when encoding is stopped
DECODE_AT_ONCE = 32
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}  # as torch names them
STARTED, VAE = "encoding.json", "vae"


@dataclass(frozen=True)
class LatentSet:
    """The record of a set of latents.

    Attributes:
        name: that of the images.
        count: of the samples.
        channels: of a latent.
        resolution: of a latent.
        dtype: of the stored values, a key of DTYPES.
        shard: samples in each file but the last.
        classes: their names.
        mean: for each channel.
        std: for each channel, of the mixture: std² = E[σ²] + Var[μ].
        fingerprint: a hash of latents and labels.
        source: what was encoded, as the person named it.
        vae: a hash of the VAE's weights, "sha256:…".
        images: path and fingerprint of the images that were encoded; None where there were latents only.
        flip: whether each image was mirrored with probability ½ before it was encoded.
    """

    name: str
    count: int
    channels: int
    resolution: int
    dtype: str
    shard: int
    classes: list[str]
    mean: list[float]
    std: list[float]
    fingerprint: str
    source: str
    vae: str
    images: dict[str, str] | None
    flip: bool = False
    kind: str = "latents"
    version: int = VERSION

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of one sample."""
        return (2, self.channels, self.resolution, self.resolution)


def shard_sizes(count: int, shard: int) -> list[int]:
    """Return the number of samples in each shard."""
    return [min(shard, count - first) for first in range(0, count, shard)]


def torch_type(name: str) -> torch.dtype:
    """Return torch's type of a key of DTYPES."""
    return getattr(torch, DTYPES[name])


def shard_file(folder: Path, number: int) -> Path:
    """Return the file of one shard."""
    return folder / f"latents-{number:05}.bin"


def write_shard(path: Path, samples: Tensor) -> None:
    """Write samples (count, 2, channels, side, side); the file is complete or not there, also after a loss of power."""
    import os

    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(samples.contiguous().view(torch.uint8).numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@dataclass(frozen=True)
class Origin:
    """What latents were made from and how they are kept; the fields are those of `LatentSet`."""

    name: str
    dtype: str
    shard: int
    classes: list[str]
    source: str
    vae: str
    images: dict[str, str] | None
    flip: bool = False


def measured(folder: Path, labels: Tensor, shape: tuple[int, ...], origin: Origin) -> LatentSet:
    """Measure the statistics and the fingerprint of a set whose shards are all written, and write its labels.

    Args:
        folder: of the set.
        labels: (count,) int64.
        shape: of one sample, (2, channels, side, side).
        origin: what is recorded besides.

    Raises:
        InputError: the latents are not finite, or a channel is constant.
    """
    digest = hashlib.sha256(f"{origin.dtype} {shape}".encode())
    values = len(labels) * shape[-1] * shape[-2]  # of each channel
    total, squares, variance = (torch.zeros(shape[1], dtype=torch.float64) for _ in range(3))
    for number, size in enumerate(shard_sizes(len(labels), origin.shard)):
        samples = map_file(shard_file(folder, number), (size, *shape), torch_type(origin.dtype))
        for part in samples.split(1024):
            digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
            mean, std = part.double().unbind(1)
            total += mean.sum((0, 2, 3))
            squares += mean.square().sum((0, 2, 3))
            variance += std.square().sum((0, 2, 3))
    mean = total / values
    std = (variance / values + squares / values - mean**2).sqrt()
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise input_error(f"the latents in {folder} are not usable", given=f"mean {mean.tolist()}, std {std.tolist()}")
    data = labels.numpy().tobytes()
    digest.update(data)
    (folder / LABELS).write_bytes(data)
    return LatentSet(
        **asdict(origin),
        count=len(labels),
        channels=shape[1],
        resolution=shape[-1],
        mean=[round(float(value), 6) for value in mean],
        std=[round(float(value), 6) for value in std],
        fingerprint="sha256:" + digest.hexdigest(),
    )


def write_record(folder: Path, record: LatentSet) -> None:
    """Write the record, which makes the folder a set: without it, the folder is half encoded."""
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def read_latent_record(folder: Path) -> LatentSet:
    """Read the record of the set in a folder. Raises InputError where there is no set, or one that is half encoded."""
    try:
        fields: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if (folder / STARTED).exists():
            raise input_error(
                f"{folder} is half encoded", given=folder, hint="run the same `mpdit data encode` again: it continues"
            ) from None
        hint = "make one with `mpdit data encode`, or say where it lies: --set recipe.data.path=FOLDER"
        raise input_error(f"there is no set of latents at {folder}", given=folder, hint=hint) from None
    except (OSError, ValueError) as error:
        raise input_error(f"{folder / MANIFEST} cannot be read", reason=error, hint="encode the set again") from None
    if fields.get("kind") != "latents":
        raise input_error(
            f"{folder} holds {fields.get('kind')}, not latents", hint=f"data: {{name: folder, path: {folder}}}"
        )
    if fields.get("version") != VERSION:
        given = f"version {fields.get('version')}"
        raise input_error(f"{folder} was encoded by another mpdit", given=given, allowed=f"version {VERSION}")
    return LatentSet(**fields)


@DATASETS.register
@dataclass(frozen=True)
class Latents(DatasetKind):
    """Latents of a VAE that `mpdit data encode` has written to a folder."""

    name: ClassVar[str] = "latents"
    doc: ClassVar[str] = "their latents, after `mpdit data encode`"
    path: str

    def files(self) -> list[Path]:
        """The folder's."""
        return [Path(self.path)]

    def load(self) -> Dataset:
        """Load the set of latents in the folder."""
        return load_latent_set(self.path)


def load_latent_set(path: str) -> Dataset:
    """Load the set of latents in a folder. Training values have mean 0 and standard deviation 1 in each channel."""
    folder = Path(path)
    record = read_latent_record(folder)
    labels = map_file(folder / LABELS, (record.count,), torch.int64)
    shards = [
        map_file(shard_file(folder, number), (size, *record.shape), torch_type(record.dtype))
        for number, size in enumerate(shard_sizes(record.count, record.shard))
    ]
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (record.mean, record.std))

    def read(index: Tensor) -> Stored:
        index = index.cpu()
        samples = torch.empty(len(index), *record.shape, dtype=torch_type(record.dtype))
        shard_of = index // record.shard
        for number in shard_of.unique().tolist():
            rows = (shard_of == number).nonzero()[:, 0]
            samples[rows] = shards[number].index_select(0, index[rows] - number * record.shard)
        return (samples,)

    def finish(stored: Stored, draws: Draws | None) -> Tensor:
        posterior_mean, posterior_std = stored[0].float().unbind(1)
        if draws is not None:
            posterior_mean = posterior_mean + posterior_std * draws.normal("latent", *record.shape[1:])
        device = posterior_mean.device
        return (posterior_mean - mean.to(device)) / std.to(device)

    def to_pixels(values: Tensor) -> Tensor:
        vae = stored_vae(folder, str(values.device))
        return decode(vae, values * std.to(values.device) + mean.to(values.device))

    return Dataset(
        name=record.name,
        labels=labels,
        classes=len(record.classes),
        channels=record.channels,
        resolution=record.resolution,
        std=1.0,
        fingerprint=record.fingerprint,
        sample_bytes=math.prod(record.shape) * torch_type(record.dtype).itemsize,
        read=read,
        finish=finish,
        to_pixels=to_pixels,
        real=None if record.images is None else lambda index: _images(folder).pixels(index).expand(-1, 3, -1, -1),
        class_names=tuple(record.classes),
        folder=folder / FEATURES,
    )


@cache
def _images(folder: Path) -> Dataset:
    """Load the images that a set was encoded from: where they were then, or beside it."""
    recorded = read_latent_record(folder).images
    assert recorded is not None
    path = Path(recorded["path"])
    for candidate in (path, folder.resolve().parent / path.name):
        if (candidate / MANIFEST).exists():
            images = load_image_folder(str(candidate), flips=False)
            if images.fingerprint == recorded["fingerprint"]:
                return images
    raise input_error(
        f"the images that {folder} was encoded from are not at {path}",
        why="samples are measured against them",
        hint=f"put them there, or at {folder.resolve().parent / path.name}",
    )


def load_vae(source: str, device: str = "cpu") -> Any:
    """Load diffusers' AutoencoderKL; only safetensors are read.

    Args:
        source: a local folder, a .safetensors with its config.json beside it, or a name on the Hugging Face hub.
        device: where it runs.

    Raises:
        InputError: it cannot be loaded, or the package `diffusers` is missing.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise input_error("VAEs need the package `diffusers`", hint="pip install 'mpdit[latents]'") from None
    path = Path(source)
    try:
        if path.suffix == ".safetensors":
            vae = _from_file(path, AutoencoderKL)
        elif path.exists() or source.count("/") == 1:
            vae = AutoencoderKL.from_pretrained(source, use_safetensors=True)
        else:
            raise FileNotFoundError(f"there is no folder {source}")
    except Exception as error:  # whatever the hub, the network, the file or the package says
        raise input_error(
            f"the VAE {source!r} cannot be loaded",
            given=source,
            reason=str(error).splitlines()[0] if str(error) else type(error).__name__,
            allowed="a folder as diffusers writes it, a .safetensors file, or a name as stabilityai/sd-vae-ft-mse",
        ) from None
    return vae.eval().requires_grad_(False).to(device)


def _from_file(path: Path, vae_class: Any) -> Any:
    config = path.parent / "config.json"
    if not config.exists():
        return vae_class.from_single_file(str(path))
    from safetensors.torch import load_file

    vae = vae_class.from_config(json.loads(config.read_text(encoding="utf-8")))
    vae.load_state_dict(load_file(path))
    return vae


@cache
def stored_vae(folder: Path, device: str) -> Any:
    """Load the VAE stored with a set of latents. Raises InputError where its weights are not the recorded ones."""
    vae = load_vae(str(folder / VAE), device)
    stored, recorded = weights_hash(vae), read_latent_record(folder).vae
    if stored != recorded:
        raise input_error(f"{folder / VAE} is not the VAE of these latents", given=stored, allowed=recorded)
    return vae


def weights_hash(vae: Any) -> str:
    """Return a hash of a VAE's weights, which does not depend on their files."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return "sha256:" + digest.hexdigest()


def encode(vae: Any, images: Tensor) -> Tensor:
    """Encode images in −1 … 1 (batch, 3, side, side): mean and std of the posterior, (batch, 2, c, s, s)."""
    with torch.inference_mode():
        posterior = vae.encode(images).latent_dist
        return torch.stack([posterior.mean, posterior.std], dim=1)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Decode latents in the VAE's own scale (batch, c, s, s) into images in −1 … 1 (batch, 3, side, side)."""
    with torch.inference_mode():
        return torch.cat([vae.decode(part).sample.clamp(-1, 1) for part in latents.split(DECODE_AT_ONCE)])
