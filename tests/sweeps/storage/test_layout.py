import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from sweeps.storage import layout
from sweeps.storage.events import SweepStarted
from sweeps.storage.layout import Busy, Storage, is_locked, locked
from sweeps.storage.ledger import Ledger


def test_a_storage_is_made_and_recognised(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "new")
    storage.prepare()
    storage.prepare()
    assert (tmp_path / "new/VERSION").read_text() == "1\n"


def test_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("99\n")
    with pytest.raises(InputError, match="has another layout"):
        Storage(tmp_path).prepare()


def test_a_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not writable"):
        Storage(tmp_path / "file").prepare()


def test_the_newest_sweep_is_the_one_last_active(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    for moment, name in enumerate(("one", "two", "three")):
        storage.sweep(name).mkdir()
        Ledger(storage.ledger(name)).append(SweepStarted("s"))
        os.utime(storage.ledger(name), ns=(moment, moment))
    assert storage.find_sweep(None) == "three"
    assert storage.find_sweep("one") == "one"
    with pytest.raises(InputError, match="two"):
        storage.find_sweep("tow")


def test_without_a_sweep_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no sweep in"):
        Storage(tmp_path).find_sweep(None)


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run 'abc'"):
        Storage(tmp_path).find_run("abc")


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "sweep x"):
        assert is_locked(path)
        with pytest.raises(Busy, match=f"sweep x is being run(.|\n)*process {os.getpid()}"), locked(path, "sweep x"):
            pass
    assert not is_locked(path)


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from sweeps.storage.layout import locked\n"
    code += "with locked(Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert is_locked(tmp_path / "lock")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert not is_locked(tmp_path / "lock")


def test_a_lock_whose_file_was_removed_is_not_the_lock_that_others_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the lock of a trial is that `mpdit clean` removes while a worker waits for it."""
    path, real, removed = tmp_path / "trial" / "lock", layout._try_lock, list[int]()

    def removed_first(file: Any, kind: int) -> bool:
        if not removed:
            removed.append(1)
            shutil.rmtree(path.parent)
        return real(file, kind)

    monkeypatch.setattr(layout, "_try_lock", removed_first)
    with locked(path, "trial x"):
        assert path.exists()
        assert is_locked(path)
        with pytest.raises(Busy), locked(path, "trial x"):
            pass
