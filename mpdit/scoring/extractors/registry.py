"""What a kind of feature extractor is, the registry of all of them, and how one is loaded by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpdit.errors import InputError, input_error, nearest
from mpdit.registry import Registry
from mpdit.scoring import small_classifier
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.published_weights import PublishedWeights


@dataclass(frozen=True)
class ExtractorKind:
    """A feature extractor that an evaluation can name.

    Attributes:
        name: as in an evaluation and in a metric's name.
        doc: what it is.
        load: from a device to the extractor. Raises InputError where its weights are missing or damaged.
        weights: where its weights are published; None where they come with the package.
    """

    name: str
    doc: str
    load: Callable[[str], Extractor]
    weights: PublishedWeights | None = None


EXTRACTORS: Registry[ExtractorKind] = Registry("feature extractor", __package__)


def load_extractor(name: str, weights_folder: Path | None = None, device: str = "cpu") -> Extractor:
    """Load a feature extractor by name: a registered kind, or the small classifier of a data set.

    Args:
        name: of the kind, or of the data set.
        weights_folder: where NAME.safetensors lies with its card NAME.json; mpdit's own weights when None.
        device: where the network runs.

    Raises:
        InputError: there is none of that name, or its weights are missing or damaged.
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name].load(device)
    folder = small_classifier.WEIGHTS if weights_folder is None else Path(weights_folder)
    if (folder / f"{name}.json").is_file():
        return small_classifier.load_classifier(name, folder, device)
    if "." in name:
        try:
            kind = EXTRACTORS[name]  # loads its plug-in
        except InputError:
            if weights_folder is None:  # else it is the name of a data set with a dot in it
                raise
        else:
            return kind.load(device)
    known = EXTRACTORS.names()
    hint = "for a data set of your own making: python -m pipelines.scoring.train_classifier NAME"
    if weights_folder:
        hint = f"mpdit data prepare and encode make one in {folder}, without --no-features"
    raise input_error(
        f"no feature extractor {name!r}", given=name, nearest=nearest(name, known), allowed=", ".join(known), hint=hint
    )
