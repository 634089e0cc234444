"""One run: recipe, train, evaluate, export. `from pipelines import train, evaluate` do what the commands do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import Trained, evaluate, train

__all__ = ["Trained", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are first used: torch and pydantic take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines import api

    return getattr(api, name)
