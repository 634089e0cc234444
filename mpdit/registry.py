"""Registries: the one way to add a kind of anything (an attention, a sampler, a metric, …), ours or a plug-in's.

A kind is one object in one file of the registry's package. Importing the file registers the kind, and the registry
imports the files of its package when it is first asked, so no list of names is kept anywhere. A name with a dot, as
`mypackage.sparse`, belongs to a plug-in: a distribution with an entry point `mypackage` in the group `mpdit.plugins`,
which names a module that registers kinds.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Generic, NamedTuple, Protocol, TypeVar

from mpdit.errors import input_error, nearest

GROUP = "mpdit.plugins"


class Kind(Protocol):
    """What every kind has: its name in recipes and sweep files, and one line that says what it is."""

    @property
    def name(self) -> str: ...

    @property
    def doc(self) -> str: ...


K = TypeVar("K", bound=Kind)


class Plugin(NamedTuple):
    """The distribution that a kind comes from: part of the identity and of the provenance of what uses it."""

    distribution: str
    version: str


class Registry(Generic[K]):
    """The kinds of one thing by name: ours in alphabetical order, then those of plug-ins.

    what: how messages call the thing, as "attention". package: the package whose modules hold our own kinds.
    """

    def __init__(self, what: str, package: str) -> None:
        self.what, self.package = what, package
        self._kinds: dict[str, K] = {}
        self._complete = False

    def register(self, kind: K) -> K:
        """Add a kind; also as a decorator. Raises ValueError for a name that another kind has."""
        if self._kinds.setdefault(kind.name, kind) is not kind:
            raise ValueError(f"{self.what} {kind.name!r} is registered twice")
        return kind

    def __getitem__(self, name: str) -> K:
        """The kind of that name. Raises InputError where there is none, or where its plug-in is not installed."""
        self._import_ours()
        if name not in self._kinds and "." in name:
            load_plugin(name.partition(".")[0])
        if name not in self._kinds:
            names = self.names()
            raise input_error(
                f"no {self.what} {name!r}", given=name, nearest=nearest(name, names), allowed=", ".join(names)
            )
        return self._kinds[name]

    def __contains__(self, name: object) -> bool:
        self._import_ours()
        return name in self._kinds

    def __iter__(self) -> Iterator[K]:
        return iter([self._kinds[name] for name in self.names()])

    def names(self) -> list[str]:
        """The names of our kinds and of those of the plug-ins that are loaded."""
        self._import_ours()
        return sorted(self._kinds, key=lambda name: ("." in name, name))

    def _import_ours(self) -> None:
        if not self._complete:
            self._complete = True
            for module in iter_modules(import_module(self.package).__path__, f"{self.package}."):
                import_module(module.name)


def plugin_of(name: str) -> Plugin | None:
    """The distribution that a kind of this name comes from; None for our own kinds. Raises InputError."""
    if "." not in name:
        return None
    found = _entry_point(name.partition(".")[0]).dist
    return Plugin(found.name, found.version) if found else Plugin(name.partition(".")[0], "unknown")


def load_plugin(name: str) -> None:
    """Import the module that registers a plug-in's kinds. Raises InputError where no such plug-in is installed."""
    _entry_point(name).load()


def load_all_plugins() -> None:
    """Import every installed plug-in, to list its kinds."""
    for point in entry_points(group=GROUP):
        point.load()


def _entry_point(name: str) -> EntryPoint:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise input_error(
            f"the plug-in {name!r} is not installed",
            given=name,
            nearest=nearest(name, points),
            installed=", ".join(sorted(points)) or "none",
            hint=f"pip install the package whose entry point in the group {GROUP} is named {name}",
        )
    return points[name]
