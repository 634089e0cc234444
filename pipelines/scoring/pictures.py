"""Pictures of samples, and curves."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

NAME_SIZE = 12  # pixels
SIDE = 64  # pixels a side that smaller images are enlarged to
GAP = 8  # pixels between images

Panels = dict[str, dict[str, list[tuple[float, float]]]]  # {title: {label: [(x, y), …]}}
Bands = dict[str, dict[str, list[tuple[float, float]]]]  # {title: {label: [(mean, standard deviation), …]}}


def write_grid(path: Path, images: Tensor, columns: int, names: Sequence[str] = ()) -> None:
    """A PNG of uint8 images (count, 1 or 3 channels, height, width), `columns` to a row; small ones are enlarged.

    names: one above each column, cut where it has no room; none at all where it is empty.
    """
    factor = max(1, SIDE // images.shape[-1])
    x = images.cpu().float()
    if factor > 1:
        x = F.interpolate(x, scale_factor=factor, mode="bicubic").round().clamp(0, 255)
    count, channels, height, width = x.shape
    rows = -(-count // columns)
    cells = torch.full((rows * columns, channels, height + GAP, width + GAP), 255.0)
    cells[:count, :, :height, :width] = x
    grid = cells.reshape(rows, columns, channels, height + GAP, width + GAP).permute(0, 3, 1, 4, 2)
    pixels = (
        grid.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP].to(torch.uint8).numpy()
    )
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    if names:
        picture = _with_names(picture, names, width + GAP)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def _with_names(picture: Image.Image, names: Sequence[str], column: int) -> Image.Image:
    """The picture below a line of names, one at the left of each `column` pixels."""
    font = ImageFont.load_default(size=NAME_SIZE)
    height = NAME_SIZE + GAP
    named = Image.new(picture.mode, (picture.width, picture.height + height), 255 if picture.mode == "L" else "white")
    named.paste(picture, (0, height))
    draw = ImageDraw.Draw(named)
    for place, name in enumerate(names):
        shown = name
        while len(shown) > 1 and draw.textlength(shown, font) > column - GAP:
            shown = shown[:-2] + "…"
        draw.text((place * column, 0), shown, fill=0 if picture.mode == "L" else "black", font=font)
    return named


def write_curves(path: Path, panels: Panels, across: str, up: str) -> None:
    """A PNG of curves over logarithmic axes, the panels side by side with one vertical axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    size = (5 * len(panels), 4.2)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for label, points in curves.items():
            axis.loglog([x for x, _ in points], [y for _, y in points], marker="o", label=label)
        axis.set(title=textwrap.fill(title, 44), xlabel=across)
        axis.grid(alpha=0.3, which="both")
    axes[0][0].set_ylabel(up)
    figure.legend(*axes[0][-1].get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_bands(path: Path, panels: Bands, across: str, up: str) -> None:
    """A PNG of means at 0, 1, 2 … with three standard deviations, the panels side by side."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    size = (4.5 * len(panels), 3.4)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (title, bands) in zip(axes[0], panels.items(), strict=True):
        for label, points in bands.items():
            at, mean = range(len(points)), [mean for mean, _ in points]
            (line,) = axis.plot(at, mean, marker="o", label=label)
            low, high = ([m + side * 3 * std for m, std in points] for side in (-1, 1))
            axis.fill_between(at, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        axis.set_title(textwrap.fill(title, 50), fontsize=9)
        axis.set(xlabel=across, xticks=range(max(map(len, bands.values()))))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylim(bottom=0)  # once all are drawn: it ends the scaling of the axis that they share
    axes[0][0].set_ylabel(up, fontsize=9)
    axes[0][-1].legend(fontsize="small", title="band: ± 3 std", title_fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
