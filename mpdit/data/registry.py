"""What a data set is as a recipe names it, and the registry of them."""

from functools import cache
from typing import Any, ClassVar, Protocol

from mpdit.data.dataset import Dataset
from mpdit.registry import Registry, choose


class DatasetKind(Protocol):
    """A data set with its settings: a frozen dataclass. What it loads has a fingerprint of its content."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def load(self) -> Dataset:
        """The data. Raises InputError where it is not there."""


DATASETS: Registry[type[DatasetKind]] = Registry("data set", __package__)


@cache
def open_dataset(kind: DatasetKind) -> Dataset:
    """The data of a kind with its settings, opened once a process. Raises InputError."""
    return kind.load()


def load_dataset(name: str, **settings: Any) -> Dataset:
    """The data set of that name, opened once a process. Raises InputError for an unknown name or a wrong setting."""
    return open_dataset(choose(DATASETS, name, settings))
