"""MLflow, in the storage's own database or on a server."""

from sweeps.spec.tracking_views import VIEWS
from sweeps.tracking.mlflow_view import check_place, open_writer, tracking_uri, without_password
from sweeps.tracking.tracking_view import TrackingView

MLFLOW = VIEWS.register(
    TrackingView(
        name="mlflow",
        doc="MLflow: runs for the sweep, its trials and its cells",
        label="MLflow",
        address=tracking_uri,
        check=check_place,
        open=open_writer,
        public=without_password,
    )
)
