"""A reference that others have published: an `.npz` in ADM's format, of statistics or of images (arXiv 2105.05233).

`mu` and `sigma` are mean and covariance of Inception's features, `mu_s` and `sigma_s` of its spatial ones, `arr_0` are
uint8 images (count, height, width, 3). Files with pickled content, which could run code, are refused.
"""

import hashlib
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpdit.errors import input_error
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.frechet import Statistics, statistics

READ_AT_ONCE = 500  # images
NOMINAL = 50_000  # the images of statistics, whose number the format does not tell; no distance depends on it


def file_hash(path: Path) -> str:
    """Return the hash of a file's content, read once a process. Raises InputError where there is no file."""
    if not path.is_file():
        hint = "an .npz in ADM's format, as VIRTUAL_imagenet256_labeled.npz"
        raise input_error(f"there is no reference at {path}", given=path, hint=hint)
    return _file_hash(path, path.stat().st_mtime_ns, path.stat().st_size)


@cache
def _file_hash(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_reference(path: Path, extractor: Extractor, image_shape: tuple[int, ...]) -> tuple[Statistics, int | None]:
    """Read the statistics that samples are measured against, or compute them of the file's images.

    Args:
        path: of the file.
        extractor: whose features are wanted; it names the arrays of its statistics.
        image_shape: of the samples, (channels, height, width): images of another size are refused.

    Returns:
        The statistics, and the number of images; None where the file does not tell it.

    Raises:
        InputError: the file cannot be used: pickled, damaged, or of other features or another size.
    """
    mean, covariance = extractor.statistics
    arrays = _arrays(path, [mean, covariance])
    dimensions = arrays[mean].shape[-1] if len(arrays) == 2 and arrays[mean].ndim else None
    if dimensions == extractor.dimensions:
        return _statistics(path, arrays[mean], arrays[covariance]), None
    images = _arrays(path, ["arr_0"]).get("arr_0")
    if images is not None:
        return _of_images(path, images, extractor, image_shape), len(images)
    given = f"{mean} of {dimensions:,} features" if dimensions else f"neither {mean} and {covariance} nor arr_0"
    allowed = f"{mean} and {covariance} of {extractor.dimensions:,} features, or images as arr_0"
    raise input_error(f"{path} is no reference for the features of {extractor.name!r}", given=given, allowed=allowed)


def _arrays(path: Path, names: list[str]) -> dict[str, Any]:
    """Return the arrays of these names that the file has. Raises InputError for a file that cannot be read."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as problem:
        if "pickle" in str(problem):
            raise input_error(
                f"{path} holds pickled content, which may run code, and is not read",
                given=str(problem),
                allowed="an .npz of plain arrays: np.savez(file, mu=mu, sigma=sigma)",
            ) from None
        allowed = "an .npz in ADM's format"
        raise input_error(f"{path} cannot be read as a reference", reason=problem, allowed=allowed) from None


def _statistics(path: Path, mean: Any, covariance: Any) -> Statistics:
    """Return sums that have this mean and covariance."""
    size = mean.shape[0]
    plain = mean.dtype.kind == "f" and covariance.dtype.kind == "f"
    if not plain or mean.shape != (size,) or covariance.shape != (size, size):
        given = f"{mean.dtype} {mean.shape}, {covariance.dtype} {covariance.shape}"
        raise input_error(f"{path} holds no mean and covariance", given=given, allowed=f"({size},), ({size}, {size})")
    mu, sigma = torch.from_numpy(mean.astype(np.float64)), torch.from_numpy(covariance.astype(np.float64))
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise input_error(f"{path} holds values that are not finite")
    return Statistics(NOMINAL, mu * NOMINAL, sigma * (NOMINAL - 1) + NOMINAL * torch.outer(mu, mu))


def _of_images(path: Path, images: Any, extractor: Extractor, shape: tuple[int, ...]) -> Statistics:
    channels, height, width = shape
    wanted = (height, width, channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or len(images) < 2:
        raise input_error(
            f"{path} holds images of another size than the samples",
            given=f"{images.dtype} {images.shape}",
            allowed=f"two or more, uint8 (count, {height}, {width}, {channels})",
        )
    parts = [torch.from_numpy(images[at : at + READ_AT_ONCE]) for at in range(0, len(images), READ_AT_ONCE)]
    sums = [statistics(extractor.features(part.permute(0, 3, 1, 2).contiguous())) for part in parts]
    return sum(sums[1:], sums[0])
