"""The version of the code that computes a training: a hash of the modules that it uses, and its plug-ins' versions.

A trial's id does not know the code. Modules are read and not imported; what changes no result (comments, docstrings,
layout) changes no hash, nor do kinds that the recipe does not use.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.identity import plugins
from pipelines.provenance import CODE
from pipelines.recipe import Recipe
from pipelines.settings import Settings, kinds_of

DIGITS = 10  # hexadecimal, of a version
STARTS = ("pipelines.training.trainer", "mpdit.data.holdout")
COUNTED = (  # settings are in the id, and what reads, writes and measures runs changes no weights
    "mpdit.data",
    "mpdit.diffusion",
    "mpdit.inference.compilation",
    "mpdit.model",
    "mpdit.randomness",
    "mpdit.schedules",
    "mpdit.training",
    "pipelines.training.processes",
    "pipelines.training.trainer",
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def training_code(recipe: Recipe) -> str:
    """Ten hexadecimal digits that name the code of a training: the modules that it uses and its plug-ins' versions."""
    return _version(frozenset(kind_modules(recipe)), tuple(sorted(plugins(recipe).items())))


@cache
def _version(kinds: frozenset[str], plugin_versions: tuple[tuple[str, str], ...]) -> str:
    digest = hashlib.sha256(repr(plugin_versions).encode())
    for module in modules_used((*STARTS, *kinds)):
        digest.update(f"{module} {_source(module).content}".encode())
    return digest.hexdigest()[:DIGITS]


def kind_modules(settings: Settings) -> Iterator[str]:
    """The modules of our kinds that the settings hold, in depth."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from kind_modules(value)
        else:
            yield from (registry.module_of(kind) for registry, kind in kinds_of(field, value))


def modules_used(starts: Iterable[str]) -> list[str]:
    """The counted modules that these import, directly or through others, and themselves: sorted names."""
    found: set[str] = set()
    waiting = [module for module in starts if _file(module)]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _source(module).imports
    return sorted(found)


class Source(NamedTuple):
    """What a version needs of one module: a hash of its content, and the counted modules that it imports."""

    content: str
    imports: list[str]


@cache
def _source(module: str) -> Source:
    path = _file(module)
    assert path is not None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name for node in ast.walk(tree) for name in _imported(node)}
    counted = {name for name in names if any(name == part or name.startswith(f"{part}.") for part in COUNTED)}
    return Source(content_hash(tree), sorted(name for name in counted if _file(name)))


def _imported(node: ast.AST) -> list[str]:
    """The names in an import; one of `from a import b` may be a module or something in a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _file(module: str) -> Path | None:
    """The file of one of our modules; None for a package, and for anything else."""
    path = CODE.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def content_hash(tree: ast.Module) -> str:
    """A hash of what a module does: of its syntax tree without comments, docstrings and places."""
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node: Any) -> Any:
    """A syntax tree as tuples; fields that are empty are left out, so that Python versions agree."""
    if isinstance(node, list):
        return tuple(map(_plain, node))
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and value != []}
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return (type(node).__name__, *((name, _plain(value)) for name, value in fields.items()))
