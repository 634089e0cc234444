"""The data sets that a recipe can name: digits (mpdit/data/digits.py), shapes, image folders and latents of a VAE."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from mpdit.data.dataset import Dataset
from mpdit.data.digits import load_digits
from mpdit.errors import input_error, nearest


def load_shapes(resolution: int = 32, count: int = 50_000) -> Dataset:
    """Coloured geometric shapes in 10 classes, made from their index: see mpdit/data/shapes.py."""
    from mpdit.data.shapes import shapes

    return shapes(resolution, count)


def load_folder(path: str, flips: bool = True) -> Dataset:
    """Images that `mpdit data prepare` has made ready: see mpdit/data/prepared_images.py."""
    from mpdit.data.prepared_images import load_image_folder

    return load_image_folder(path, flips)


def load_latents(path: str) -> Dataset:
    """Latents that `mpdit data encode` has made: see mpdit/data/latents.py."""
    from mpdit.data.latents import load_latent_set

    return load_latent_set(path)


@dataclass(frozen=True)
class Kind:
    """A data set as a recipe names it: what opens it, the settings that it takes and those that it needs."""

    load: Callable[..., Dataset]
    holds: str
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


DATASETS = {
    "digits": Kind(load_digits, "1,797 handwritten digits, 8×8 grey"),
    "shapes": Kind(load_shapes, "coloured shapes without end, made from their index", ("resolution", "count")),
    "folder": Kind(load_folder, "your images, after `mpdit data prepare`", ("path", "flips"), needs=("path",)),
    "latents": Kind(load_latents, "their latents, after `mpdit data encode`", ("path",), needs=("path",)),
}


@cache
def load_dataset(name: str, **settings: int | bool | str) -> Dataset:
    """The data set of that name, opened once a process. Raises InputError for an unknown name or a wrong setting."""
    check_settings(name, settings)
    return DATASETS[name].load(**settings)


def check_settings(name: str, settings: Mapping[str, object]) -> None:
    """Raises InputError for an unknown data set, a setting that it does not take, or one that it needs and lacks."""
    if name not in DATASETS:
        raise input_error(
            f"no data set {name!r}", given=name, nearest=nearest(name, DATASETS), allowed=", ".join(DATASETS)
        )
    kind = DATASETS[name]
    for setting, value in settings.items():
        if setting not in kind.settings:
            allowed = ", ".join(kind.settings) or "its name alone"
            raise input_error(f"the data set {name!r} has no {setting}", given=f"{setting}: {value}", allowed=allowed)
    for setting in kind.needs:
        if setting not in settings:
            raise input_error(f"the data set {name!r} needs a {setting}", hint=f"data: {{name: {name}, {setting}: …}}")
