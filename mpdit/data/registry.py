"""What a data set is in a recipe, and the registry of them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Lt

from mpdit.data.dataset import Dataset
from mpdit.data.holdout import with_holdout
from mpdit.registry import Registry, choose


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """A data set with its settings: each kind is a frozen dataclass derived from this one.

    Attributes:
        holdout: the fraction of the images that no training sees; the settings of every kind include it, and
            `open_dataset` heeds it.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    holdout: Annotated[float, Ge(0), Lt(1)] = 0.0

    @property
    def title(self) -> str:
        """What people call the set: the name of its folder; of its kind, where it has none."""
        path: str | None = getattr(self, "path", None)
        return Path(path).resolve().name if path else self.name

    def load(self) -> Dataset:
        """Load all of the data, with a fingerprint of its content. Raises InputError where it is missing."""
        raise NotImplementedError


DATASETS: Registry[type[DatasetKind]] = Registry("data set", __package__)


@cache
def open_dataset(kind: DatasetKind) -> Dataset:
    """Load the data that a kind with its settings trains on, once a process. Raises InputError where it is missing."""
    return with_holdout(kind.load(), kind.holdout)


def load_dataset(name: str, **settings: Any) -> Dataset:
    """Load the data set of that name, once a process. Raises InputError for an unknown name or a wrong setting."""
    return open_dataset(choose(DATASETS, name, settings))
