"""Our feature extractors inside torch-fidelity."""

from pathlib import Path

from torch import Tensor

from mpdit.scoring.extractors.registry import load_extractor


def register_with_torch_fidelity(name: str, weights_folder: Path | None = None) -> str:
    """Register an extractor as a `feature_extractor=` of torch_fidelity; return the name that it has there."""
    from torch_fidelity import FeatureExtractorBase, register_feature_extractor
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    registered = f"mpdit-{name}"

    class Registered(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name_in_registry: str, features_list: list[str], **_options: object) -> None:
            super().__init__(name_in_registry, features_list)
            self.network = load_extractor(name, weights_folder).network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            raise NotImplementedError

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (self.network(images),)

    if registered not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(registered, Registered)
    return registered
