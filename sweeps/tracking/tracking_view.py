"""What a tracking view offers: it shows the events of a sweep in a store, and can be rebuilt from the ledger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sweeps.planning.plan import Plan
from sweeps.spec.tracking_views import VIEWS
from sweeps.storage.events import Event
from sweeps.storage.layout import Storage


class Writer(Protocol):
    """Writes the events of one sweep to one store. Showing an event twice shows it once."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def shown_count(self, ledger: Sequence[Event]) -> int:
        """How many events of the ledger the store is known to show; 0 where it has shown others in their place."""

    def mark_shown(self, events: Sequence[Event]) -> None:
        """Note in the store that these events, the ledger's first, are shown; later ones are at the next start."""

    def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True, kw_only=True)
class TrackingView:
    """A kind of store that shows sweeps.

    Args:
        label: How messages call it.
        address: The whole address of the store, from the storage and `tracking.uri`. Raises InputError.
        check: Checks before a sweep starts that the store can be written, from the same two. Raises InputError.
        open: Opens the store at an address for a sweep's plan; the string is the identity that the ledger gives it.
        public: An address as it may be shown, without a password.
    """

    name: str
    doc: str
    label: str
    address: Callable[[Storage, str | None], str]
    check: Callable[[Storage, str | None], None]
    open: Callable[[Storage, Plan, str, str], Writer]
    public: Callable[[str], str]


def view_of(plan: Plan) -> TrackingView:
    """The view that a sweep asks for."""
    view: TrackingView = VIEWS[plan.spec.tracking.view]
    return view
