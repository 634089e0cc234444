"""One run: recipe, train, evaluate, export. `from pipelines import train, evaluate` do what the commands do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.calls import Trained, evaluate, train

__all__ = ["Trained", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    """The two functions, imported when they are asked for: torch and pydantic take seconds."""
    if name in __all__:
        from pipelines import calls

        return getattr(calls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
