"""A setting that names a kind of a registry: checked when it is read, and listed in the JSON Schema."""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from mpdit.registry import Registry


class KindName:
    """Marks a string field as the name of a kind: `Annotated[str, KindName(SEARCHES)]`.

    An unknown name is an input error; a name with a dot loads its plug-in.
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(lambda name: str(self.registry[name].name), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        ours = [name for name in self.registry.names() if "." not in name]
        return {"anyOf": [{"type": "string", "enum": ours}, {"type": "string", "pattern": r"\."}]}
