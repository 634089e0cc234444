"""YAML files as people write them: every value knows its line, and a mistake gets one clear message."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mpdit.errors import InputError, input_error, nearest
from pipelines.settings import one_of

Model = TypeVar("Model", bound=BaseModel)
Where = tuple[str | int, ...]
DEEPEST = 50  # levels; settings have no ten
MOST_VALUES = 100_000


@dataclass
class Document:
    """Plain data with its origin: `lines` maps the path of each key to its line, from 1, or to 0 if --set wrote it."""

    data: Any
    name: str
    lines: dict[Where, int] = field(default_factory=dict)

    def place(self, where: Where) -> str:
        """`file, line 9` of the nearest known key at or above the path."""
        for length in range(len(where), 0, -1):
            line = self.lines.get(where[:length])
            if line is not None:
                return f"{self.name}, line {line}" if line else "--set " + ".".join(str(key) for key in where[:length])
        return self.name

    def under(self, prefix: Where) -> "Document":
        """The part of the document below one key, with its lines."""
        data = self.data
        for key in prefix:
            data = data[key]
        lines = {where[len(prefix) :]: line for where, line in self.lines.items() if where[: len(prefix)] == prefix}
        return Document(data, self.name, lines)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number (YAML 1.1, as PyYAML reads it, wants 1.0e-3)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a value; one that only looks like a number or a date (2026-02-31) is PyYAML's own kind of error."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, TypeError, LookupError, ArithmeticError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _record_lines(node: yaml.Node, where: Where, document: Document) -> None:
    """Note the line of every key. Raises InputError for what no settings have: a key twice, a list as a key, depth."""
    line = f"{document.name}, line {node.start_mark.line + 1}"
    if len(where) > DEEPEST or len(document.lines) > MOST_VALUES:
        what = "levels deep" if len(where) > DEEPEST else "values large, with what its aliases repeat"
        most = DEEPEST if len(where) > DEEPEST else MOST_VALUES
        raise input_error(f"{line}: this is more than {most:,} {what}", allowed=f"{most:,}")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise input_error(f"{line}: a key is not a word", allowed="lines of `key: value`")
            here = (*where, key.value)
            if here in document.lines:
                raise input_error(
                    f"{document.name}, line {key.start_mark.line + 1}: {key.value!r} is written twice",
                    given=key.value,
                    first=f"line {document.lines[here]}",
                )
            document.lines[here] = key.start_mark.line + 1
            _record_lines(value, here, document)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            document.lines[(*where, index)] = item.start_mark.line + 1
            _record_lines(item, (*where, index), document)


def read_yaml(path: Path) -> Document:
    """The document in a file. Raises InputError for a missing file, broken YAML or a key written twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise input_error(f"there is no file {path}", given=path, hint="check the path") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise input_error(f"{path} cannot be read", given=path, reason=error) from None
    document = _read_text(text, str(path))
    if not isinstance(document.data, dict):
        given = "nothing" if document.data is None else f"a {type(document.data).__name__}"
        raise input_error(f"{path} holds no settings", given=given, allowed="lines of `key: value`")
    return document


def _read_text(text: str, name: str) -> Document:
    """The document in a text; `name` is what messages call it. Raises InputError."""
    document = Document(None, name)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _record_lines(node, (), document)
            document.data = loader.construct_document(node)
    except RecursionError:
        raise input_error(f"{name}: this is nested too deeply", allowed=f"{DEEPEST} levels") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise input_error(f"{name}{line}: this is not YAML", reason=error.problem) from None
    except yaml.YAMLError as error:
        raise input_error(f"{name}: this is not YAML", reason=error) from None
    return document


def parse_value(text: str) -> Any:
    """A value as it would be read from a file: `0.01` → a number, `[1, 2]` → a list. Raises InputError."""
    return _read_text(text, repr(text)).data


def apply_settings(document: Document, settings: list[str]) -> Document:
    """The document with `path=value` settings laid over it; a path starts at the file's own root."""
    data, lines = copy.deepcopy(document.data), dict(document.lines)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise input_error(f"--set {setting!r} says no value", given=setting, allowed="PATH=VALUE, as seed=1")
        keys = path.split(".")
        if keys[0] == "axes" and len(keys) > 1:
            keys = ["axes", ".".join(keys[1:])]  # an axis is one key with dots in it
        place = data
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise input_error(f"--set {setting!r}: {key} holds no fields", given=setting)
        place[keys[-1]] = parse_value(text)
        lines = {where: line for where, line in lines.items() if where[: len(keys)] != tuple(keys)}
        lines[tuple(keys)] = 0
    return Document(data, document.name, lines)


def anchored(document: Document, where: Where) -> Document:
    """The document with the path, or list of paths, at `where` made absolute.

    What a file says is relative to it; what --set says, to the working directory.
    """
    data = copy.deepcopy(document.data)
    place = data
    for key in where[:-1]:
        place = place.get(key) if isinstance(place, dict) else None
    if isinstance(place, dict) and where[-1] in place:
        start = Path.cwd() if document.lines.get(where) == 0 else Path(document.name).parent
        given = place[where[-1]]
        whole = [str((start / one).absolute()) if isinstance(one, str) else one for one in _listed(given)]
        place[where[-1]] = whole if isinstance(given, list) else whole[0]
    return Document(data, document.name, document.lines)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def write_yaml(path: Path, data: dict[str, Any]) -> None:
    """Plain data as YAML, keys in their own order, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8")
    partial.replace(path)


def field_names(model: type[BaseModel], where: Where = ()) -> list[str]:
    """The fields that a model has at a path into it; empty where the path leads to no model."""
    for key in where:
        inner = model.model_fields.get(str(key))
        kinds = one_of(inner) if inner else None
        if kinds and key == where[-1]:
            return ["name", *kinds.settings()]
        if inner is None or not (isinstance(inner.annotation, type) and issubclass(inner.annotation, BaseModel)):
            return []
        model = inner.annotation
    return list(model.model_fields)


def validate(model: type[Model], document: Document) -> Model:
    """The document as a model. Raises InputError that names the file, line, key, what was given and what is allowed."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise _explain(model, document, error) from None


def _explain(model: type[BaseModel], document: Document, error: ValidationError) -> InputError:
    # a field that is missing has often been written under another name: tell that name first
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    where: Where = _written(document.data, first["loc"]) if first["type"] not in ABOUT_KEYS else tuple(first["loc"])
    alternatives = [problem for problem in problems if _written(document.data, problem["loc"]) == where]
    key, place = ".".join(str(part) for part in where), document.place(where)
    others = len(problems) - max(1, len(alternatives))
    more = f"{others} more after this one" if others else None
    if first["type"] == "extra_forbidden":
        fields = field_names(model, where[:-1])
        owner = ".".join(str(part) for part in where[:-1]) or "the file"
        return input_error(
            f"{place}: {owner} has no field {str(where[-1])!r}",
            given=f"{where[-1]}: {first['input']}",
            nearest=nearest(where[-1], fields),
            allowed=", ".join(fields),
            then=more,
        )
    if first["type"] == "missing":
        return input_error(f"{place}: {key} is missing", hint=f"write a line `{where[-1]}: …`", then=more)
    causes = [cause for one in alternatives if isinstance(cause := one.get("ctx", {}).get("error"), InputError)]
    if causes:
        return InputError(f"{place}: {key + ': ' if key else ''}{causes[0]}")
    allowed = ", or ".join(dict.fromkeys(map(rule, alternatives)))
    return input_error(f"{place}: {key} cannot be used", given=repr(first["input"]), allowed=allowed, then=more)


def _written(data: Any, where: Sequence[str | int]) -> Where:
    """The part of pydantic's path that is in the data; behind it stand names of alternatives, as literal['auto']."""
    for length, key in enumerate(where):
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return tuple(where[:length])
    return tuple(where)


def explained(error: ValidationError) -> str:
    """The first of pydantic's errors in a line, for values that stand in no file."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    where = ".".join(str(part) for part in first["loc"])
    return str(cause) if isinstance(cause, InputError) else f"{where} cannot be {first['input']!r}: {rule(first)}"


ABOUT_KEYS = ("missing", "extra_forbidden")  # what pydantic says of a key, not of its value
RULES = {  # pydantic's own words where they are plain, ours where they are not
    "list_type": "a list, as [0.01, 0.02]",
    "dict_type": "fields, as {name: value}",
    "model_type": "fields, as {name: value}",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "string_pattern_mismatch": "letters, digits and . _ - (64 at most, a letter or digit first)",
    "none_required": "null: this cannot be set yet",
}


def rule(problem: Any) -> str:
    """What a refused value should have been, from one of pydantic's errors."""
    message: str = problem["msg"]
    return RULES.get(problem["type"], message.removeprefix("Input should be ").removeprefix("Value error, "))
