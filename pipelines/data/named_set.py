"""The data that a person names, by a data set's name or a prepared set's folder, as the fields of a recipe."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpdit.data.prepared_images import FEATURES, MANIFEST, read_record
from mpdit.data.registry import DATASETS
from mpdit.errors import input_error, nearest
from mpdit.registry import needed_settings, settings_of

ALIKE = 1.5  # times the distance of two halves of a set: how far its mirrored images may be, if flips do no harm


@dataclass(frozen=True)
class NamedSet:
    """A data set as a person names it.

    Attributes:
        fields: of `recipe.data`: its kind, and the folder where it has one.
        features: the card of the features that were trained for it; empty where there are none.
        source: what it was prepared from; None for a set that mpdit makes.
    """

    fields: dict[str, Any]
    features: dict[str, Any]
    source: str | None = None

    @property
    def takes_flips(self) -> bool:
        """Whether its images can be mirrored as they are trained on."""
        return "flips" in settings_of(DATASETS[self.fields["name"]])

    @property
    def flips(self) -> bool:
        """Whether mirrored images belong to the set, as far as is known: its features tell them from the others."""
        return float(self.features.get("mirrored") or ALIKE) < ALIKE


def named_set(name: str) -> NamedSet:
    """The data set of that name, or of that prepared folder. Raises InputError where there is none."""
    folder = Path(name)
    if name in DATASETS and not needed_settings(DATASETS[name]):
        return NamedSet({"name": name}, {})
    if name not in DATASETS and folder.is_dir():
        record = _record(folder)
        kind = "latents" if record.get("kind") == "latents" or (folder / "encoding.json").exists() else "folder"
        if kind == "folder":
            read_record(folder)  # says what is wrong where it is no prepared set
        card = folder / FEATURES / f"{record.get('name')}.json"
        features = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        return NamedSet({"name": kind, "path": name}, features, record.get("source"))
    known = [kind.name for kind in DATASETS if not needed_settings(kind)]
    raise input_error(
        f"{name} is a kind of data set: which one is said by its folder"
        if name in DATASETS
        else f"there is no data set {name!r}",
        given=name,
        nearest=None if name in DATASETS else nearest(name, known),
        allowed=", ".join(known) + ", or the folder of a prepared set",
        hint=f"mpdit data {'encode' if name == 'latents' else 'prepare'} makes one" if name in DATASETS else None,
    )


def _record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record
