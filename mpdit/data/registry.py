"""What a data set is in a recipe, and the registry of them."""

from functools import cache
from typing import Any, ClassVar, Protocol

from mpdit.data.dataset import Dataset
from mpdit.registry import Registry, choose


class DatasetKind(Protocol):
    """A data set with its settings: a frozen dataclass. The set that it loads has a fingerprint of its content."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def load(self) -> Dataset:
        """Load the data. Raises InputError where it is missing."""


DATASETS: Registry[type[DatasetKind]] = Registry("data set", __package__)


@cache
def open_dataset(kind: DatasetKind) -> Dataset:
    """Load the data of a kind with its settings, once a process. Raises InputError where it is missing."""
    return kind.load()


def load_dataset(name: str, **settings: Any) -> Dataset:
    """Load the data set of that name, once a process. Raises InputError for an unknown name or a wrong setting."""
    return open_dataset(choose(DATASETS, name, settings))
