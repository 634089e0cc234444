"""Registries find the kinds in their package, whoever asks first."""

import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from mpdit.registry import Registry, as_fields, check_settings, choose, needed_settings, not_a_setting, settings_of

KIND = """\
from dataclasses import dataclass
from time import sleep
from typing import ClassVar

from {package}.registry import KINDS
{slow}

@KINDS.register
@dataclass(frozen=True)
class Kind:
    name: ClassVar[str] = "{name}"
    doc: ClassVar[str] = "made up"
    size: int{default}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two kinds; the first takes its time to be imported."""
    name = f"made_up_kinds_{abs(hash(tmp_path))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    text = f"""
        from mpdit.registry import Registry
        KINDS = Registry("thing", "{name}")
    """
    (folder / "registry.py").write_text(textwrap.dedent(text))
    (folder / "a.py").write_text(KIND.format(package=name, name="first", default=" = 3", slow="sleep(0.2)"))
    (folder / "b.py").write_text(KIND.format(package=name, name="second", default="", slow=""))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def registry_of(package: str) -> "Registry[Any]":
    __import__(f"{package}.registry")
    found: Registry[Any] = sys.modules[f"{package}.registry"].KINDS
    return found


def test_every_thread_sees_all_kinds_whoever_asks_first(package: str) -> None:
    kinds = registry_of(package)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: kinds.names(), range(8))) == [["first", "second"]] * 8


def test_a_file_that_cannot_be_imported_is_not_forgotten(package: str) -> None:
    kinds = registry_of(package)
    broken = Path(next(iter(sys.modules[package].__path__))) / "c.py"
    broken.write_text("raise RuntimeError('broken')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            kinds.names()


def test_one_name_is_one_kind(package: str) -> None:
    kinds = registry_of(package)
    assert "first" in kinds
    with pytest.raises(ValueError, match="'first' is registered twice"):
        kinds.register(type("Other", (), {"name": "first"}))


def test_a_kind_is_chosen_with_its_settings(package: str) -> None:
    kinds = registry_of(package)
    assert choose(kinds, "first", {}).size == 3
    assert as_fields(choose(kinds, "first", {"size": 3})) == {"name": "first"}
    assert as_fields(choose(kinds, "second", {"size": 4})) == {"name": "second", "size": 4}
    assert needed_settings(kinds["second"]) == ["size"]
    with pytest.raises(InputError, match="the thing 'second' needs a size"):
        choose(kinds, "second", {})
    with pytest.raises(InputError, match=r"the thing 'first' has no sise\n(.*\n)*  nearest: +size"):
        check_settings(kinds, "first", {"sise": 1})
    with pytest.raises(InputError, match=r"nearest: +first"):
        kinds["frist"]
    with pytest.raises(InputError, match="the plug-in 'nobody' is not installed"):
        kinds["nobody.first"]


def test_what_comes_from_the_data_is_no_setting() -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    @dataclass(frozen=True)
    class Kind:
        name: ClassVar[str] = "x"
        sigma: float = not_a_setting(0.5)
        size: int = 1

    assert list(settings_of(Kind)) == ["size"]
    assert as_fields(Kind(sigma=2.0)) == {"name": "x"}
