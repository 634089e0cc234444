"""The JSON Schema of sweep files: what an editor completes, explains and underlines."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from sweeps.spec.model import SweepSpec
from sweeps.spec.paths import axis_paths, is_post_hoc_path
from sweeps.spec.space import Domain


class _WithKinds(GenerateJsonSchema):
    """pydantic's schema, where a default that is a kind stands as its name."""

    def encode_default(self, dft: Any) -> Any:
        """The default as JSON."""
        name = getattr(dft, "name", None)
        return name if isinstance(name, str) else super().encode_default(dft)


def sweep_schema() -> dict[str, Any]:
    """The schema (JSON Schema draft 2020-12) of a sweep file; axes are named by the paths that may be swept."""
    found = SweepSpec.model_json_schema(schema_generator=_WithKinds)
    axes = found["properties"]["axes"]
    found["$defs"]["Domain"] = Domain.model_json_schema()
    values = {"anyOf": [{"type": "array", "minItems": 1}, {"$ref": "#/$defs/Domain"}]}
    axes["properties"] = {path: {**values, "description": _axis(path)} for path in axis_paths()}
    axes["additionalProperties"] = False
    axes["minProperties"] = 1
    found["required"] = sorted({*found.get("required", []), "axes"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "mpdit sweep file"}


def _axis(path: str) -> str:
    return "post-hoc: costs no training" if is_post_hoc_path(path) else "a training axis: each value is a training"
