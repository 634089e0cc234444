"""Facts that are kept on a machine: found once, harmed, forgotten, changed."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import known_facts
from pipelines.known_facts import known_fact
from pipelines.recipe import Recipe


def test_a_fact_is_found_once_and_again_when_the_file_is_harmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path))
    calls: list[int] = []

    def fact(of: int) -> int:
        known_facts._facts.cache_clear()  # as another process
        return int(known_facts.known_fact("double", of, lambda: calls.append(of) or 2 * of))

    assert [fact(1), fact(1), fact(2), fact(1)] == [2, 2, 4, 2]
    assert calls == [1, 2]
    path = tmp_path / "facts.json"
    whole = path.read_text()
    for harmed in (whole[:-20], whole.replace("4", "5"), "[]", "", "\x00"):
        path.write_text(harmed)
        caplog.clear()
        assert fact(2) == 4
        assert "made anew" in caplog.text
    caplog.set_level(logging.WARNING)
    path.unlink()
    assert fact(2) == 4
    path.unlink()
    path.mkdir()  # a cache that can be neither read nor written
    assert fact(2) == 4


def test_no_more_facts_are_kept_than_a_process_reads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(known_facts, "KEPT", 3)
    for of in range(5):
        known_facts.known_fact("same", of, lambda of=of: of)
    assert list(json.loads((tmp_path / "facts.json").read_text())["facts"].values()) == [2, 3, 4]


def test_the_facts_of_a_data_set_are_the_set_s_own_and_change_with_its_files(tmp_path: Path) -> None:
    for data in ({"name": "digits"}, {"name": "shapes", "resolution": 8, "count": 20}):
        recipe = Recipe.model_validate({"data": data, "batch": 8})
        facts, dataset = recipe.facts, recipe.dataset
        assert len(facts) == len(dataset)
        for name in ("name", "classes", "channels", "resolution", "std", "fingerprint"):
            assert getattr(facts, name) == getattr(dataset, name)
        assert recipe.architecture(facts) == recipe.architecture(dataset)
    before = known_facts._state(tmp_path)
    (tmp_path / "set.json").write_text("{}")
    changed = known_facts._state(tmp_path)
    (tmp_path / "set.json").write_text("{ }")
    assert before != changed != known_facts._state(tmp_path)


def test_processes_that_learn_facts_at_once_keep_each_other_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path))
    known_facts._facts.cache_clear()
    known_fact("mine", 1, lambda: "one")
    other = "from pipelines.known_facts import known_fact; known_fact('theirs', 2, lambda: 'two')"
    own = dict(known_facts._facts(tmp_path / "facts.json"))
    subprocess.run([sys.executable, "-c", other], check=True)
    known_fact("mine", 3, lambda: "three")
    assert len(known_facts._read(tmp_path / "facts.json")) == len(own) + 2
    known_facts._facts.cache_clear()
