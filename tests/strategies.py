"""What hypothesis draws for several tests. All kinds come from the registries, so that new ones are drawn too."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from mpdit.registry import Registry

WORDS = (
    "auto",
    "none",
    "name",
    "values",
    "when",
    "min",
    "frechet",
    "digits",
    "scale+gate",
    "grid",
    "tpe",
    "asha",
    "../x",
)
NUMBERS = st.one_of(st.integers(-2, 40), st.integers(), st.floats(), st.sampled_from([10**400, 1e-320, 2**63, 0.05]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS), st.text(max_size=8), st.dates())


def kind_names(registry: Registry[Any]) -> list[str]:
    """Our own kinds."""
    return [name for name in registry.names() if "." not in name]


def anything(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """Values as YAML can hold them; fields are mostly called as settings are."""
    names = st.one_of(st.sampled_from(keys), st.text(max_size=4))
    return st.recursive(
        PLAIN,
        lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(names, part, max_size=3)),
        max_leaves=6,
    )


def places(data: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below some plain data, and of the data."""
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [where, *(path for key, value in parts for path in places(value, (*where, key)))]


@st.composite
def changed(draw: Callable[..., Any], documents: Sequence[dict[str, Any]]) -> Any:
    """One of the documents with one to three of its values replaced, removed or joined by others."""
    data = copy.deepcopy(draw(st.sampled_from(documents)))
    keys = sorted({str(key) for document in documents for where in places(document) for key in where})
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(places(data)[1:] or [("name",)]))
        place = data
        for key in parents:
            place = place[key]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del place[last]
        elif action == "add" and isinstance(place, dict):
            place[draw(st.sampled_from(keys))] = draw(anything(keys))
        else:
            place[last] = draw(anything(keys))
    return data
