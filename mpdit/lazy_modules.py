"""Modules that are imported when they are first used: torch takes seconds, and to read a sweep file nobody needs it."""

from importlib import import_module
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Stands for a module until one of its attributes is read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what inspection asks of any object
            raise AttributeError(name)
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # the next time it is found at once
        return value


def lazy_module(name: str) -> Any:
    """Return what stands for the module of that name; it is imported when it is first used."""
    return LazyModule(name)
