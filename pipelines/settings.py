"""What all settings have in common: strict pydantic models, and fields that hold one kind of a registry."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from mpdit.errors import input_error, nearest
from mpdit.registry import Registry, as_fields, changed_settings, check_settings, needed_settings, settings_of


class Settings(BaseModel):
    """Strict, immutable settings: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class PostHoc:
    """Marks a field that a finished training answers for every value: an axis over it costs no training."""


POST_HOC = PostHoc()


def known(names: Any, what: str) -> AfterValidator:
    """A name that must be one of `names`; `what` is what messages call the thing."""

    def check(value: str) -> str:
        if value not in names:
            raise input_error(
                f"no {what} {value!r}", given=value, nearest=nearest(value, names), allowed=", ".join(names)
            )
        return value

    return AfterValidator(check)


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


class OneOf:
    """Marks a field that holds one kind of a registry, with its settings.

    In a file it is the kind's name, or `{name: NAME, SETTING: VALUE, …}`.

    Args:
        registry: where the kinds are.
        default: the kind that fields without a name belong to.
        is_section: whether it is always written as fields, also where no setting differs from its default.
    """

    def __init__(self, registry: Registry[Any], default: str, is_section: bool = False) -> None:
        self.registry, self.default, self.is_section = registry, default, is_section

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.chosen, serialization=core_schema.plain_serializer_function_ser_schema(self.plain)
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Any of the names; or fields, which differ from kind to kind."""
        names = {"enum": self.registry.names(), "description": "; ".join(f"{k.name}: {k.doc}" for k in self.registry)}
        return {"anyOf": [names, *(_json_schema(k) for k in self.registry if self.is_section or settings_of(k))]}

    def chosen(self, given: Any) -> Any:
        """The kind that was given, with its settings checked. Raises InputError, or pydantic's ValidationError."""
        name = getattr(given, "name", None)
        if isinstance(name, str) and name in self.registry and self.registry[name] in (given, type(given)):
            return given
        fields = {"name": given} if isinstance(given, str) else given
        if not isinstance(fields, Mapping) or not isinstance(fields.get("name", ""), str):
            raise input_error(
                f"{self.registry.what}: neither a name nor fields",
                given=repr(given),
                allowed=f"{', '.join(self.registry.names())}, or {{name: NAME, SETTING: VALUE}}",
            )
        name = fields.get("name", self.default)
        kind: Any = self.registry[name]
        given = {key: value for key, value in fields.items() if key != "name"}
        settings = {key: value for key, value in given.items() if not self._is_silent(kind, key, value)}
        check_settings(self.registry, name, {key: value for key, value in settings.items() if key in self.settings()})
        if not isinstance(kind, type):
            return kind
        lists = {key for key, hint in get_type_hints(kind).items() if get_origin(hint) is tuple}
        settings |= {key: tuple(settings[key]) for key in lists if isinstance(settings.get(key), list)}  # as files do
        return kind(**dict(_checked(kind).model_validate(settings)))

    def _is_silent(self, kind: Any, setting: str, value: Any) -> bool:
        """Whether a setting says nothing: null, or another kind's at its default, as older files write them."""
        others = [settings_of(other)[setting] for other in self.registry if setting in settings_of(other)]
        return value is None or (setting not in settings_of(kind) and value in [other.default for other in others])

    def plain(self, chosen: Any) -> Any:
        """A chosen kind as a file writes it: its name, or fields with the settings that differ from their defaults."""
        return as_fields(chosen) if self.is_section or changed_settings(chosen) else chosen.name

    def settings(self) -> list[str]:
        """The settings of all kinds, each once."""
        return list(dict.fromkeys(setting for kind in self.registry for setting in settings_of(kind)))


def one_of(field: FieldInfo) -> OneOf | None:
    """The mark of a field that holds one kind of a registry; None for any other field."""
    return next((mark for mark in field.metadata if isinstance(mark, OneOf)), None)


NOTHING = "none"  # where several kinds may be joined: none of them


class KindNames:
    """Marks a field that names kinds of a registry in a way of its own: several in a list, or joined by +, or none."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry


def kinds_of(field: FieldInfo, value: Any) -> list[tuple[Registry[Any], str]]:
    """The kinds in a field by registry and name; none for a field that holds no kinds."""
    for mark in field.metadata:
        if isinstance(mark, OneOf):
            return [(mark.registry, value.name)]
        if isinstance(mark, (KindName, KindNames)):
            names = str(value).split("+") if isinstance(value, str) else list(value)
            return [(mark.registry, name) for name in names if name != NOTHING or name in mark.registry]
    return []


def is_post_hoc(field: FieldInfo) -> bool:
    """Whether the field is marked as post-hoc."""
    return any(isinstance(mark, PostHoc) for mark in field.metadata)


@cache
def _checked(kind: type) -> type[BaseModel]:
    """A model with the kind's settings, which checks their types and bounds."""
    hints = get_type_hints(kind, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if name in needed_settings(kind) else field.default)
        for name, field in settings_of(kind).items()
    }
    return create_model(kind.__name__, __base__=Settings, **fields)


def _json_schema(kind: Any) -> dict[str, Any]:
    """The fields of one kind."""
    found: dict[str, Any] = _checked(kind).model_json_schema() if isinstance(kind, type) else {"type": "object"}
    properties = {"name": {"const": kind.name}, **found.get("properties", {})}
    return {**found, "properties": properties, "description": kind.doc, "additionalProperties": False}
