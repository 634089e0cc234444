"""A prepared set of images: bytes in one file that is mapped into memory, with labels and a fingerprint.

images.bin   uint8 (count, 1 or 3, resolution, resolution)       labels.bin   int64 (count,)       set.json
    features/    the extractor trained for it
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mpdit.data.dataset import Dataset, from_bytes, from_bytes_flipped
from mpdit.data.image_entry import Unusable, is_image
from mpdit.data.registry import DATASETS, DatasetKind
from mpdit.errors import input_error
from mpdit.lazy_modules import lazy_module

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
else:
    np = lazy_module("numpy")
    torch = lazy_module("torch")

MANIFEST, IMAGES, LABELS, FEATURES = "set.json", "images.bin", "labels.bin", "features"
VERSION = 1
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 10**8  # of one image; more is taken for a decompression bomb
LARGE = 64  # pixels a side that a small model learns in an hour
FEWEST = 8  # images; the noise floor compares quarters of a set


@dataclass(frozen=True)
class ImageSet:
    """The record of a prepared set.

    Attributes:
        name: also that of the features trained for it.
        count: of the images.
        resolution: of the images.
        classes: their names.
        mean: for each channel of the pixels in −1 … 1.
        std: for each channel of the pixels in −1 … 1.
        overall_std: of all pixel values.
        fingerprint: a hash of the images' and the labels' bytes.
        source: what was prepared, as the person named it.
        skipped: the files that were left out, each with the reason.
        notes: what was changed, each with the number of images.
    """

    name: str
    count: int
    resolution: int
    classes: list[str]
    mean: list[float]
    std: list[float]
    overall_std: float
    fingerprint: str
    source: str
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    channels: int = 3
    kind: str = "images"
    version: int = VERSION


@contextmanager
def guarded() -> Iterator[None]:
    """While open, Pillow fails for an image of more than MAX_PIXELS, before it decodes it."""
    from PIL import Image

    limit_before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns beyond it, and fails beyond twice as much
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit_before


def decode(data: bytes, resolution: int) -> tuple[np.ndarray, list[str]]:
    """Decode a file's bytes: the centre square, resized with antialiasing (Lanczos). Call it under `guarded`.

    Returns:
        uint8 (3, resolution, resolution), and notes of what was changed.

    Raises:
        Unusable: it is not an image that can be used.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise Unusable(f"is an animation of {getattr(image, 'n_frames', 'several')} frames")
            if image.mode.startswith(("I", "F")):
                raise Unusable(f"has more than 8 bits a channel (mode {image.mode})")
            mode, upright = image.mode, ImageOps.exif_transpose(image)
            side = min(upright.size)
            left, top = (upright.width - side) / 2, (upright.height - side) / 2
            square = upright.convert("RGB").resize(
                (resolution, resolution), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
            )
    except Unusable:
        raise
    except Image.DecompressionBombError:
        raise Unusable(f"claims more than {MAX_PIXELS:,} pixels: a decompression bomb") from None
    except Exception as error:  # a damaged file may fail anywhere in a decoder
        reason = "not an image of these types" if isinstance(error, UnidentifiedImageError) else str(error)
        raise Unusable(f"cannot be read as PNG, JPEG or WebP: {reason}") from None
    notes = [f"{mode} turned to RGB"] if mode not in ("RGB", "L") else []
    notes += [f"smaller than {resolution} pixels, enlarged"] if side < resolution else []
    return np.asarray(square).transpose(2, 0, 1), notes


class ImageWriter:
    """Writes images one after another into a folder, and their record at the end. A context manager.

    As long as all are grey, they have one channel; the first coloured one turns those before it to three.

    Args:
        folder: of the set.
        name: of the set.
        resolution: of the images.
        rgb: whether images have three channels also where all are grey.
        kept: how many images, and of how many channels, an earlier writer has left that are to stay.
    """

    def __init__(
        self, folder: Path, name: str, resolution: int, *, rgb: bool = False, kept: tuple[int, int] = (0, 1)
    ) -> None:
        self.folder, self.name, self.resolution = folder, name, resolution
        count, channels = kept
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / IMAGES
        self._begin(3 if rgb else channels)
        if count:
            with self.path.open("r+b") as file:
                file.truncate(count * channels * resolution**2)
            for image in _images_in(self.path, (channels, resolution, resolution)):
                self._count(image)
        self.file = self.path.open("ab" if count else "wb")

    def _begin(self, channels: int) -> None:
        self.channels, self.count, self.digest = channels, 0, hashlib.sha256()
        self.sums, self.squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, image: np.ndarray) -> None:
        """Write one uint8 image (1 or 3 channels, resolution, resolution)."""
        if self.channels == 1 and len(image) == 3:
            if (image == image[:1]).all():
                image = image[:1]
            else:
                self._turn_to_three()
        if len(image) < self.channels:
            image = image.repeat(self.channels, 0)
        self.file.write(np.ascontiguousarray(image).tobytes())
        self._count(image)

    def _count(self, image: np.ndarray) -> None:
        self.digest.update(np.ascontiguousarray(image).tobytes())
        pixels = image.reshape(self.channels, -1).astype(np.int64)
        self.sums += pixels.sum(1)
        self.squares += (pixels * pixels).sum(1)
        self.count += 1

    def _turn_to_three(self) -> None:
        self.file.close()
        grey = self.path.with_suffix(".grey")
        self.path.replace(grey)
        self._begin(3)
        self.file = self.path.open("wb")
        for image in _images_in(grey, (1, self.resolution, self.resolution)):
            self.add(image)
        grey.unlink()

    def finish(
        self, labels: list[int], classes: list[str], source: str, skipped: dict[str, str], notes: dict[str, int]
    ) -> ImageSet:
        """Write the labels and the record, without which a folder is no set.

        Args:
            labels: the class of each image.
            classes: their names.
            source: what was prepared, as the person named it.
            skipped: the files that were left out, each with the reason.
            notes: what was changed, each with the number of images.
        """
        self.file.close()
        data = np.asarray(labels, np.int64).tobytes()
        (self.folder / LABELS).write_bytes(data)
        self.digest.update(data)
        pixels = self.count * self.resolution**2
        mean, square = self.sums / pixels, self.squares / pixels
        record = ImageSet(
            name=self.name,
            count=self.count,
            resolution=self.resolution,
            classes=classes,
            mean=[round(float(value), 4) for value in mean / 127.5 - 1],
            std=[round(math.sqrt(value) / 127.5, 4) for value in square - mean**2],
            overall_std=round(math.sqrt(square.mean() - mean.mean() ** 2) / 127.5, 4),
            fingerprint="sha256:" + self.digest.hexdigest(),
            source=source,
            skipped=skipped,
            notes=notes,
            channels=self.channels,
        )
        (self.folder / MANIFEST).write_text(json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n", "utf-8")
        return record


def _images_in(path: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Read the uint8 images of a file one after another."""
    with path.open("rb") as file:
        while data := file.read(math.prod(shape)):
            yield np.frombuffer(data, np.uint8).reshape(shape)


def read_record(folder: Path) -> ImageSet:
    """Read the record of the prepared set in a folder. Raises InputError where there is none."""
    try:
        fields: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        command = f"mpdit data prepare {folder} -o FOLDER --resolution {_usual_resolution(folder)}"
        hint = command if folder.exists() else "check the path"
        raise input_error(f"there is no prepared set of images at {folder}", given=folder, hint=hint) from None
    except (OSError, ValueError) as error:
        raise input_error(f"{folder / MANIFEST} cannot be read", reason=error, hint="prepare the set again") from None
    if fields.get("kind") != "images":
        raise input_error(f"{folder} holds {fields.get('kind')}", hint=f"data: {{name: {fields.get('kind')}, path: …}}")
    if fields.get("version") != VERSION:
        given = f"version {fields.get('version')}"
        raise input_error(f"{folder} was prepared by another mpdit", given=given, allowed=f"version {VERSION}")
    return ImageSet(**fields)


def _usual_resolution(folder: Path) -> int:
    """The smaller side of the first image below a folder, at most LARGE; LARGE where there is none to look at."""
    from PIL import Image

    for path in folder.rglob("*") if folder.is_dir() else ():
        if is_image(path.name):
            try:
                with Image.open(path, formats=FORMATS) as image:
                    return min(LARGE, *image.size)
            except (OSError, ValueError):
                break
    return LARGE


def map_file(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Map a file into memory as a tensor. Raises InputError for a file of another size."""
    expected = math.prod(shape) * dtype.itemsize
    size = path.stat().st_size if path.exists() else 0
    if size != expected:
        raise input_error(
            f"{path} is not whole", given=f"{size:,} bytes", allowed=f"{expected:,} bytes", hint="make the set again"
        )
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=dtype).reshape(shape)


@DATASETS.register
@dataclass(frozen=True)
class Folder(DatasetKind):
    """Images that `mpdit data prepare` has written to a folder; `flips`: see `load_image_folder`."""

    name: ClassVar[str] = "folder"
    doc: ClassVar[str] = "your images, after `mpdit data prepare`"
    path: str
    flips: bool = True

    def files(self) -> list[Path]:
        """The folder's."""
        return [Path(self.path)]

    def load(self) -> Dataset:
        """Load the prepared set in the folder."""
        return load_image_folder(self.path, self.flips)


def load_image_folder(path: str, flips: bool = True) -> Dataset:
    """Load the prepared set in a folder. flips: each image is mirrored with probability ½ whenever it is trained on."""
    folder = Path(path)
    record = read_record(folder)
    images = map_file(folder / IMAGES, (record.count, record.channels, *2 * (record.resolution,)), torch.uint8)
    labels = map_file(folder / LABELS, (record.count,), torch.int64)
    return Dataset(
        name=record.name,
        labels=labels,
        classes=len(record.classes),
        channels=record.channels,
        resolution=record.resolution,
        std=record.overall_std,
        fingerprint=record.fingerprint + ("+flips" if flips else ""),
        sample_bytes=images[0].numel(),
        read=lambda index: (images.index_select(0, index.cpu()),),
        finish=from_bytes_flipped if flips else from_bytes,
        class_names=tuple(record.classes),
        folder=folder / FEATURES,
    )
