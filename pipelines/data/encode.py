"""Make a set of latents: encode a prepared set of images with a VAE, or take latents that others have encoded."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpdit.data import latents
from mpdit.data.image_entry import LABELS, read_labels
from mpdit.data.latents import LatentSet
from mpdit.data.prepared_images import FEATURES, MANIFEST, load_image_folder, read_record
from mpdit.errors import input_error
from mpdit.randomness import uniform
from pipelines.data.prepare import Progress, check_output, disk_errors_explained, number_classes, set_name

BATCH = 64
REFERENCE = ("posterior_means.pt", "posterior_stds.pt", "labels.pt", "stats.pt")
AGREE = 0.02  # of a standard deviation: how far given statistics may be from those of the latents


@dataclass(frozen=True)
class Ready:
    """Latents to be written: what they are, and how to get the samples first … first + count − 1, batch by batch.

    shape: (2, channels, side, side) of one. statistics: the mean and std of each channel, where they were given.
    """

    name: str
    labels: Tensor
    classes: list[str]
    shape: tuple[int, ...]
    samples: Callable[[int, int], Iterator[Tensor]]
    content: str  # by which a continuation knows that it is the same
    images: dict[str, str] | None = None
    statistics: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Encoding:
    """How images are encoded: the numbers that are kept, whether images are flipped before, and the device."""

    dtype: str = "bf16"
    flip: bool = False
    device: str = "cpu"


def make_latents(
    source: str, output: Path, vae: str, how: Encoding | None = None, progress: Progress | None = None
) -> LatentSet:
    """The latents of a source as a set in the folder `output`; stopped in any way, the same call continues.

    source: a prepared set of images, which the VAE encodes; or latents that are ready: a folder with the reference's
    four .pt files, or EDM2's zip. The VAE is kept with the set, to decode samples. flip: each image is mirrored with
    probability ½ before it is encoded, once. A set that is there already, made of the same, is left as it is.
    """
    path, how = Path(source), how or Encoding()
    dtype, flip = how.dtype, how.flip
    coder = latents.load_vae(vae, how.device)
    if (output / MANIFEST).exists():
        there = latents.read_latent_record(output)
        asked = (str(path.resolve()), latents.weights_hash(coder), dtype, flip)
        if (there.source, there.vae, there.dtype, there.flip) == asked:
            return there
    started = {"source": str(path.resolve()), "vae": latents.weights_hash(coder), "dtype": dtype, "flip": flip}
    if path.suffix.lower() == ".zip" or (path / REFERENCE[0]).exists():
        if flip:
            raise input_error("latents that are ready cannot be flipped", given="--flip", hint="leave --flip out")
        found = _edm2(path, set_name(output)) if path.suffix.lower() == ".zip" else _reference(path, set_name(output))
    else:
        found = _encoded(path, coder, flip, how.device)
    with disk_errors_explained(output):
        return _written(found, output, started, coder, progress)


def _encoded(path: Path, coder: Any, flip: bool, device: str) -> Ready:
    record, images = read_record(path), load_image_folder(str(path), flips=False)
    mirrored = uniform((len(images),), 0, 0, "flip before encoding") < 0.5 if flip else torch.zeros(len(images)).bool()

    def coded(index: Tensor) -> Tensor:
        pixels = images.plain(index).to(device, non_blocking=True).expand(-1, 3, -1, -1)  # grey: as VAEs take it
        turn = mirrored[index].to(device).reshape(-1, 1, 1, 1)
        return latents.encode(coder, torch.where(turn, pixels.flip(-1), pixels))

    def samples(first: int, count: int) -> Iterator[Tensor]:
        waiting: Tensor | None = None
        for index in torch.arange(first, first + count).split(BATCH):
            now = coded(index)  # on a GPU this returns before it is done: the last batch is written meanwhile
            if waiting is not None:
                yield waiting
            waiting = now
        if waiting is not None:
            yield waiting

    return Ready(
        images.name,
        images.labels,
        record.classes,
        tuple(coded(torch.arange(1)).shape[1:]),
        samples,
        record.fingerprint,
        {"path": str(path.resolve()), "fingerprint": record.fingerprint},
    )


def _reference(folder: Path, name: str) -> Ready:
    """The layout of the paper's code: posterior_means.pt, posterior_stds.pt, labels.pt, stats.pt."""
    means, stds, labels, stats = (_loaded(folder / name) for name in REFERENCE)
    shape = tuple(means.shape) if isinstance(means, Tensor) else ()
    fits = isinstance(stds, Tensor) and isinstance(labels, Tensor) and isinstance(stats, dict)
    if not fits or len(shape) != 4 or stds.shape != means.shape or labels.shape != shape[:1]:
        raise input_error(
            f"{folder} does not hold the reference's latents",
            given=", ".join(str(tuple(getattr(part, "shape", ()))) for part in (means, stds, labels)),
            allowed="means and stds (count, channels, side, side), labels (count,), stats {mean, std}",
        )

    def samples(first: int, count: int) -> Iterator[Tensor]:
        for index in torch.arange(first, first + count).split(BATCH):
            yield torch.stack([means[index].float(), stds[index].float()], dim=1)

    numbers, classes = number_classes([int(label) for label in labels], str(folder))
    mean, std = (torch.as_tensor(stats.get(name, torch.nan)).double().flatten() for name in ("mean", "std"))
    return Ready(name, torch.tensor(numbers), classes, (2, *shape[1:]), samples, _of_files(folder), None, (mean, std))


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise input_error(f"{path} is missing", given=path.parent, allowed=", ".join(REFERENCE)) from None
    except Exception as error:  # a file of another kind may fail anywhere in torch's reader
        raise input_error(f"{path} cannot be read as tensors", reason=str(error).splitlines()[0]) from None


def _of_files(folder: Path) -> str:
    return ", ".join(f"{name}: {(folder / name).stat().st_size}" for name in REFERENCE)


def _edm2(path: Path, name: str) -> Ready:
    """EDM2's zip: …/img-mean-std-….npy, each (2·channels, side, side) fp32, and dataset.json."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise input_error(f"{path} cannot be read as a zip", given=path, reason=error) from None
    names = sorted(name for name in archive.namelist() if name.endswith(".npy"))
    if not names or LABELS not in archive.namelist():
        raise input_error(f"{path} holds no latents of EDM2", allowed=f"files img-mean-std-….npy and {LABELS}")
    known = read_labels(archive.read(LABELS), f"{path}/{LABELS}")
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise input_error(f"{path}/{unknown[0]} has no label in {LABELS}", given=unknown[0])
    numbers, classes = number_classes([known[name] if known is not None else None for name in names], str(path))
    shape = _posterior(archive, path, names[0]).shape

    def samples(first: int, count: int) -> Iterator[Tensor]:
        for name in names[first : first + count]:
            found = _posterior(archive, path, name)
            if found.shape != shape:
                raise input_error(f"{path}/{name} has another shape", given=tuple(found.shape), allowed=tuple(shape))
            yield found[None]

    fingerprint = f"{len(names)} files, {path.stat().st_size} bytes"
    return Ready(name, torch.tensor(numbers), classes, tuple(shape), samples, fingerprint)


def _posterior(archive: zipfile.ZipFile, path: Path, name: str) -> Tensor:
    try:
        with archive.open(name) as file:
            values = np.load(file, allow_pickle=False)
        if values.ndim != 3 or values.shape[0] % 2:
            raise ValueError(f"its shape is {values.shape}, not (2·channels, side, side)")
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise input_error(f"{path}/{name} cannot be read as a latent", reason=error) from None
    return torch.from_numpy(values.astype(np.float32)).unflatten(0, (2, -1))


def _written(ready: Ready, output: Path, started: dict[str, Any], coder: Any, progress: Progress | None) -> LatentSet:
    started = started | {"content": ready.content, "count": len(ready.labels), "shard": latents.SHARD}
    _begin(output, started, coder)
    dtype = latents.torch_type(started["dtype"])
    done = 0
    for number, size in enumerate(latents.shard_sizes(len(ready.labels), latents.SHARD)):
        file = latents.shard_file(output, number)
        if file.exists():
            done += size
            continue
        parts = []
        for part in ready.samples(done, size):
            parts.append(part.to(dtype).cpu())
            if progress:
                progress(done + sum(len(one) for one in parts), len(ready.labels))
        latents.write_shard(file, torch.cat(parts))
        done += size
    origin = latents.Origin(
        name=ready.name,
        dtype=started["dtype"],
        shard=latents.SHARD,
        classes=ready.classes,
        source=started["source"],
        vae=started["vae"],
        images=ready.images,
        flip=started["flip"],
    )
    record = latents.measured(output, ready.labels, ready.shape, origin)
    if ready.statistics:
        _check_statistics(output, record, *ready.statistics)
    if ready.images:
        features = Path(ready.images["path"]) / FEATURES
        if features.is_dir() and read_record(features.parent).channels == 3:  # what the VAE decodes has three
            shutil.copytree(features, output / FEATURES, dirs_exist_ok=True)
    latents.write_record(output, record)
    (output / latents.STARTED).unlink()
    return record


def _begin(output: Path, started: dict[str, Any], coder: Any) -> None:
    """A new folder, or one that the same encoding has begun. Raises InputError for any other."""
    file = output / latents.STARTED
    if (output / MANIFEST).exists() or not file.exists():
        check_output(output)
        output.mkdir(parents=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(started, indent=2) + "\n", encoding="utf-8")
        partial.replace(file)
    before = json.loads(file.read_text(encoding="utf-8"))
    differs = [f"{key} was {before.get(key)}, is {value}" for key, value in started.items() if before.get(key) != value]
    if differs:
        raise input_error(
            f"{output} was begun otherwise",
            differs="; ".join(differs),
            hint="give the same options to continue it, or choose another -o",
        )
    coder.save_pretrained(output / latents.VAE)


def _check_statistics(output: Path, record: LatentSet, mean: Tensor, std: Tensor) -> None:
    found = torch.tensor([record.mean, record.std], dtype=torch.float64)
    given = torch.stack([mean, std]) if mean.shape == std.shape == found[0].shape else torch.full_like(found, torch.nan)
    if not ((found - given).abs() <= AGREE * found[1]).all():
        raise input_error(
            f"{REFERENCE[3]} does not belong to these latents",
            given=f"mean {mean.tolist()}, std {std.tolist()}",
            allowed=f"mean {record.mean}, std {record.std}, which the latents have",
            hint=f"check the files, and remove {output}",
        )
