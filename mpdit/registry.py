"""Registries: the one way to add a kind of anything (an attention, a sampler, a metric, …), ours or a plug-in's.

A kind is one object in one file of the registry's package. Importing the file registers the kind, and the registry
imports the files of its package when it is first asked, so no list of names is kept anywhere. A name with a dot, as
`mypackage.sparse`, belongs to a plug-in: a distribution with an entry point `mypackage` in the group `mpdit.plugins`,
which names a module that registers kinds.

A kind that has settings is a frozen dataclass: its fields are the settings, bounded by `annotated_types`, and what is
chosen is an instance of it. A kind without settings may be any object that has a name.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import walk_packages
from threading import RLock
from typing import Any, Generic, NamedTuple, TypeVar

from mpdit.errors import input_error, nearest

GROUP = "mpdit.plugins"
LAYERS = "layers"  # a folder beside kinds for what they build, which is imported when it is built


K = TypeVar("K")  # has a `name`, by which recipes and sweep files know it, and a `doc`: one line that says what it is


class Plugin(NamedTuple):
    """The distribution that a kind comes from: part of the identity and of the provenance of what uses it."""

    distribution: str
    version: str


class Registry(Generic[K]):
    """The kinds of one thing by name: ours in alphabetical order, then those of plug-ins.

    what: how messages call the thing, as "attention". package: the package whose modules, in depth, hold our own
    kinds.
    """

    def __init__(self, what: str, package: str) -> None:
        self.what, self.package = what, package
        self._kinds: dict[str, K] = {}
        self._modules: dict[str, str] = {}
        self._complete = self._importing = False
        self._lock = RLock()  # a second thread waits until all kinds are there

    def register(self, kind: K) -> K:
        """Add a kind; also as a decorator. Raises ValueError for a name that another kind has."""
        name: str = kind.name  # type: ignore[attr-defined]
        if self._kinds.setdefault(name, kind) is not kind:
            raise ValueError(f"{self.what} {name!r} is registered twice")
        self._modules[name] = sys._getframe(1).f_globals["__name__"]
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

    def module_of(self, name: str) -> str:
        """The module that registered the kind of that name. Raises InputError where there is none."""
        return self._modules.get(name, type(self[name]).__module__)

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
        if self._complete:
            return
        with self._lock:
            if self._complete or self._importing:  # a kind's own file may ask while it is imported
                return
            self._importing = True
            try:
                for module in walk_packages(import_module(self.package).__path__, f"{self.package}."):
                    if LAYERS not in module.name.split("."):
                        import_module(module.name)
                self._complete = True
            finally:
                self._importing = False


def not_a_setting(default: Any) -> Any:
    """A dataclass field that no recipe sets, because it follows from the data."""
    return dataclasses.field(default=default, metadata={"setting": False})


def settings_of(kind: object) -> dict[str, "dataclasses.Field[Any]"]:
    """The settings of a kind, or of a chosen one, by name."""
    if not dataclasses.is_dataclass(kind):
        return {}
    is_plain = not isinstance(kind, type) and not isinstance(getattr(type(kind), "name", None), str)
    return {} if is_plain else {f.name: f for f in dataclasses.fields(kind) if f.metadata.get("setting", True)}


def needed_settings(kind: object) -> list[str]:
    """The settings of a kind that have no default."""
    missing = dataclasses.MISSING
    return [name for name, f in settings_of(kind).items() if f.default is missing and f.default_factory is missing]


def check_settings(registry: "Registry[Any]", name: str, given: Mapping[str, object]) -> None:
    """Raises InputError for an unknown kind, a setting that it does not have, or one that it needs and lacks."""
    known = settings_of(registry[name])
    for setting, value in given.items():
        if setting not in known:
            others = [kind.name for kind in registry if setting in settings_of(kind)]
            raise input_error(
                f"the {registry.what} {name!r} has no {setting}",
                given=f"{setting}: {value}",
                nearest=None if others else nearest(setting, known),
                belongs_to=", ".join(others) or None,
                allowed=", ".join(known) or "its name alone",
            )
    for setting in needed_settings(registry[name]):
        if setting not in given:
            hint = f"{{name: {name}, {setting}: …}}"
            raise input_error(f"the {registry.what} {name!r} needs a {setting}", hint=hint)


def choose(registry: "Registry[Any]", name: str, settings: Mapping[str, object]) -> Any:
    """The kind of that name with these settings, whose types and bounds are not checked here. Raises InputError."""
    check_settings(registry, name, settings)
    kind = registry[name]
    return kind(**settings) if isinstance(kind, type) else kind


def choose_from(registry: "Registry[Any]", fields: Mapping[str, Any]) -> Any:
    """The chosen kind that `as_fields` wrote. Raises InputError."""
    return choose(registry, fields["name"], {name: value for name, value in fields.items() if name != "name"})


def as_fields(chosen: Any) -> dict[str, Any]:
    """A chosen kind as plain values: its name, and the settings that are not the default ones."""
    return {"name": chosen.name, **changed_settings(chosen)}


def changed_settings(chosen: Any) -> dict[str, Any]:
    """The settings of a chosen kind that are not the default ones."""
    known = settings_of(chosen)
    return {name: getattr(chosen, name) for name, field in known.items() if getattr(chosen, name) != field.default}


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
