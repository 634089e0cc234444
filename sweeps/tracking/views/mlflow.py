"""MLflow, in the storage's own database or on a server."""

from typing import TYPE_CHECKING

from sweeps.spec.tracking_views import VIEWS
from sweeps.tracking.tracking_view import TrackingView, Writer

if TYPE_CHECKING:
    from sweeps.planning.plan import Plan
    from sweeps.storage.layout import Storage


def _address(storage: "Storage", uri: str | None) -> str:
    from sweeps.tracking.mlflow_view import tracking_uri

    return tracking_uri(storage, uri)


def _check(storage: "Storage", uri: str | None) -> None:
    from sweeps.tracking.mlflow_view import check_place

    check_place(storage, uri)


def _open(storage: "Storage", plan: "Plan", sweep: str, address: str) -> Writer:
    from sweeps.tracking.mlflow_view import open_writer

    return open_writer(storage, plan, sweep, address)


def _public(address: str) -> str:
    from sweeps.tracking.mlflow_view import without_password

    return without_password(address)


MLFLOW = VIEWS.register(
    TrackingView(
        name="mlflow",
        doc="MLflow: runs for the sweep, its trials and its cells",
        label="MLflow",
        address=_address,
        check=_check,
        open=_open,
        public=_public,
    )
)
