"""`shapes`: an endless data set, drawn from the index: one coloured shape on a plain ground, in 10 classes.

The same index is the same picture at every resolution, on every machine. Everything is drawn independently:
half-size uniform in 0.3 … 0.7 of half the frame, centre uniform where the shape's circle stays inside the frame,
rotation uniform; the shape's colour of uniform hue, saturation in 0.4 … 1 and value in 0.6 … 1; the ground's of
uniform hue, saturation in 0 … 0.6 and value in 0 … 0.5. Edges are anti-aliased: a pixel's coverage is taken from
its centre's distance to the edge.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mpdit.data.dataset import Dataset, Stored, from_bytes
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

VERSION = 1  # raised when an index means another picture than before
STD = 0.365  # of the pixels in −1 … 1, within 4 % from 16 pixels a side on
SMALLEST, LARGEST = 8, 1024  # pixels a side
RENDER_AT_ONCE = 2**20  # pixels
CACHED_BYTES = 2**31  # a larger set is drawn again in every epoch
TURN = 2 * math.pi


def polygon(x: Tensor, y: Tensor, sides: int) -> Tensor:
    """Return the distances to the lines of the edges of the regular polygon in the unit circle: (sides, …)."""
    angles = [TURN * (edge + 0.5) / sides + TURN / 4 for edge in range(sides)]
    return torch.stack([x * math.cos(a) + y * math.sin(a) for a in angles]) - math.cos(math.pi / sides)


def box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    """Return the distance to a rectangle around the origin, negative inside."""
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def disc(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to the unit circle, negative inside."""
    return (x * x + y * y).sqrt() - 1


def star(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to a five-pointed star in the unit circle: beyond at most one line of its inner pentagon."""
    angles = [TURN * (edge + 0.5) / 5 + TURN / 4 for edge in range(5)]
    lines = torch.stack([x * math.cos(a) + y * math.sin(a) for a in angles]) - math.cos(2 * math.pi / 5)
    return lines.topk(2, dim=0).values[1]


# Each: (…), (…) in units of the shape's half-size → distance to its edge, negative inside. All lie in the unit circle.
OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": disc,
    "ring": lambda x, y: (disc(x, y) + 0.2).abs() - 0.2,
    "half disc": lambda x, y: torch.maximum(disc(x, y), -y),
    "crescent": lambda x, y: torch.maximum(disc(x, y), -0.15 - disc(x - 0.45, y)),
    "triangle": lambda x, y: polygon(x, y, 3).amax(0),
    "square": lambda x, y: box(x, y, math.sqrt(0.5), math.sqrt(0.5)),
    "bar": lambda x, y: box(x, y, 0.95, 0.3),
    "pentagon": lambda x, y: polygon(x, y, 5).amax(0),
    "star": star,
    "cross": lambda x, y: torch.minimum(box(x, y, 0.95, 0.3), box(x, y, 0.3, 0.95)),
}


NAMES = tuple(OUTLINES)
DRAWN = ("size", "x", "y", "turn", "hue", "saturation", "value", "ground hue", "ground saturation", "ground value")


def attributes(index: Tensor) -> dict[str, Tensor]:
    """Return the random numbers of the pictures at (batch,) indices: {name of DRAWN: (batch,) float64 in [0, 1)}.

    A number is the finaliser of splitmix64 over the index and the name's position: integer arithmetic, which gives the
    same on every machine.
    """
    first = index.cpu().numpy().astype(np.uint64) * np.uint64(16)
    return {name: torch.from_numpy(_mixed(first + np.uint64(position))) for position, name in enumerate(DRAWN)}


def _mixed(values: np.ndarray) -> np.ndarray:
    mixed = (values + np.uint64(VERSION)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) / np.float64(2**64)


def colour(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Convert hue, saturation and value in [0, 1], each (batch,), to red, green, blue in [0, 1]: (batch, 3)."""
    sector = torch.stack([(hue * 6 + shift) % 6 for shift in (5, 3, 1)], dim=-1)
    weight = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * weight)


def render(index: Tensor, resolution: int) -> Tensor:
    """Draw the pictures at (batch,) indices: uint8 (batch, 3, resolution, resolution). The class is index modulo 10."""
    pictures = torch.empty(len(index), 3, resolution, resolution, dtype=torch.uint8)
    for number, outline in enumerate(OUTLINES.values()):
        of_class = (index.cpu() % len(NAMES) == number).nonzero()[:, 0]
        for rows in of_class.split(max(1, RENDER_AT_ONCE // resolution**2)):
            pictures[rows] = _drawn(outline, scene(index.cpu()[rows]), resolution)
    return pictures


@dataclass(frozen=True)
class Scene:
    """The contents of pictures: (batch,) float64 each, lengths in halves of the frame; colours (batch, 3) in 0 … 1."""

    size: Tensor
    x: Tensor
    y: Tensor
    turn: Tensor
    shape: Tensor
    ground: Tensor


def scene(index: Tensor) -> Scene:
    """Return the contents of the pictures at (batch,) indices."""
    drawn = attributes(index)
    size = 0.3 + 0.4 * drawn["size"]
    x, y = ((2 * drawn[axis] - 1) * (1 - size) for axis in ("x", "y"))
    shape = colour(drawn["hue"], 0.4 + 0.6 * drawn["saturation"], 0.6 + 0.4 * drawn["value"])
    ground = colour(drawn["ground hue"], 0.6 * drawn["ground saturation"], 0.5 * drawn["ground value"])
    return Scene(size, x, y, TURN * drawn["turn"], shape, ground)


def _drawn(outline: Callable[[Tensor, Tensor], Tensor], contents: Scene, resolution: int) -> Tensor:
    # per picture in float64, per pixel in fp32 with arithmetic that every machine rounds alike
    a, b, c, d, scale = (
        value.float().reshape(-1, 1, 1)
        for value in (
            contents.turn.cos() / contents.size,
            contents.turn.sin() / contents.size,
            contents.x,
            contents.y,
            contents.size * (resolution / 2),
        )
    )
    pixel = (torch.arange(resolution) + 0.5) * (2 / resolution) - 1
    x, y = pixel - c, pixel[:, None] - d
    distance = outline(a * x + b * y, a * y - b * x) * scale
    coverage = (0.5 - distance).clamp(0, 1)[:, None]
    shape, ground = (part.float()[..., None, None] for part in (contents.shape, contents.ground))
    return ((ground + (shape - ground) * coverage) * 255).round().to(torch.uint8)


@DATASETS.register
@dataclass(frozen=True)
class Shapes(DatasetKind):
    """Coloured geometric shapes in 10 classes, as many and as large as wanted."""

    name: ClassVar[str] = "shapes"
    doc: ClassVar[str] = "coloured shapes without end, made from their index"
    resolution: Annotated[int, Ge(1)] = 32
    count: Annotated[int, Ge(1)] = 50_000

    def files(self) -> list[Path]:
        """None: they are made from their index."""
        return []

    def load(self) -> Dataset:
        """Load the first `count` of them."""
        return shapes(self.resolution, self.count)


def shapes(resolution: int, count: int) -> Dataset:
    """Load the first `count` pictures; each is drawn when it is first read, and cached where all fit in memory."""
    if not SMALLEST <= resolution <= LARGEST:
        raise input_error(
            f"shapes of {resolution} pixels a side cannot be drawn",
            given=f"resolution: {resolution}",
            allowed=f"{SMALLEST} to {LARGEST}",
        )
    if count < len(NAMES):
        raise input_error(
            f"{count} shapes are fewer than the classes", given=f"count: {count}", allowed=f"{len(NAMES)} or more"
        )
    sample_bytes = 3 * resolution**2
    return Dataset(
        name="shapes",
        labels=torch.arange(count) % len(NAMES),
        classes=len(NAMES),
        channels=3,
        resolution=resolution,
        std=STD,
        fingerprint="sha256:"
        + hashlib.sha256(f"shapes {VERSION}: {count} of {resolution} pixels".encode()).hexdigest(),
        sample_bytes=sample_bytes,
        read=_cached(count, resolution) if count * sample_bytes <= CACHED_BYTES else lambda i: (render(i, resolution),),
        finish=from_bytes,
        class_names=NAMES,
    )


def _cached(count: int, resolution: int) -> Callable[[Tensor], Stored]:
    pictures = torch.empty(count, 3, resolution, resolution, dtype=torch.uint8)  # memory is taken as it is written
    drawn = torch.zeros(count, dtype=torch.bool)

    def read(index: Tensor) -> Stored:
        index = index.cpu()
        missing = index[~drawn[index]].unique()
        if len(missing):
            pictures[missing] = render(missing, resolution)
            drawn[missing] = True
        return (pictures[index],)

    return read
