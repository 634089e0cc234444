"""Pictures of samples."""

from pathlib import Path

from PIL import Image
from torch import Tensor

ENLARGED_TO = 64  # pixels a side, for images smaller than that


def write_grid(path: Path, images: Tensor, columns: int) -> None:
    """A PNG of uint8 images (count, 1 or 3 channels, height, width), `columns` to a row, small ones enlarged."""
    count, channels, height, width = images.shape
    factor = max(1, ENLARGED_TO // height)
    rows = -(-count // columns)
    canvas = images.new_zeros((rows * columns, channels, height, width))
    canvas[:count] = images
    grid = canvas.reshape(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = grid.reshape(rows * height, columns * width, channels).cpu().numpy()
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST).save(path, format="PNG")
