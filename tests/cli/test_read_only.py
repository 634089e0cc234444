"""Commands that only read, on a storage that cannot be written: another person's, or on a disk mounted for reading."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.storage.layout import Storage, is_locked, locked

WRITTEN = Path(__file__).parents[1] / "fixtures" / "release-0.1.0"
LOOKING = ["status", "rank", "report", "clean --best 1", "plan sweep.yaml --set recipe.optimizer.lr=0.02"]
COMPUTING = ["best --export", "evaluate 45735ea336 --samples 20", "sample 45735ea336 --rows 1"]
RUN_EACH = """
import json, os, sys
from cli.main import main
if os.access(sys.argv[1], os.W_OK):
    sys.exit("the storage can be written")
codes = {}
for command in json.loads(sys.argv[2]):
    sys.argv = ["mpdit", *command.split(), "--storage", "theirs"]
    try:
        main()
        codes[command] = 0
    except SystemExit as end:
        codes[command] = end.code
    except Exception as problem:
        codes[command] = repr(problem)
print("\\n" + json.dumps(codes))
"""
# permission bits bind root too without these capabilities
BITS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []
MOUNT = "mount --bind theirs theirs && mount -o remount,ro,bind theirs && exec "


@pytest.fixture
def theirs(tmp_path: Path) -> Storage:
    """A storage whose sweep has run, with the locks that its driver and workers have left."""
    storage = Storage(shutil.copytree(WRITTEN / "storage", tmp_path / "theirs"))
    shutil.copy(WRITTEN / "sweep.yaml", tmp_path)
    (storage.trial("of-no-sweep") / "ema").mkdir(parents=True)
    (storage.trial("of-no-sweep") / "recipe.yaml").touch()
    for path in (storage.lock("before"), *(storage.trial(trial) / "lock" for trial in storage.trial_names())):
        with locked(path, "it"):
            pass
    return storage


def run_each(commands: list[str], prefix: list[str], folder: Path) -> dict[str, int | str]:
    """How each command ends that runs behind `prefix` beside the storage."""
    command = [*prefix, sys.executable, "-c", RUN_EACH, "theirs", json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes: dict[str, int | str] = json.loads(done.stdout.splitlines()[-1])
    return codes


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_reading_commands_work_where_permissions_forbid_writing(theirs: Storage, tmp_path: Path) -> None:
    if BITS and not shutil.which("setpriv"):
        pytest.skip("root writes whatever the permissions say, and there is no setpriv")
    before = files(theirs.root)
    for path in (theirs.root, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        codes = run_each([*LOOKING, "clean --yes"], BITS, tmp_path)
    finally:
        for path in (theirs.root, *before):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert codes == {**dict.fromkeys(LOOKING, 0), "clean --yes": 2}  # which says that it cannot be written
    assert files(theirs.root) == before


@pytest.mark.slow
def test_reading_commands_work_on_a_disk_that_is_mounted_for_reading(theirs: Storage, tmp_path: Path) -> None:
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT + '"$@"', "sh"]
    try:
        subprocess.run([*prefix, "true"], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    assert run_each([*LOOKING, *COMPUTING], prefix, tmp_path) == dict.fromkeys([*LOOKING, *COMPUTING], 0)


def test_to_look_whether_a_lock_is_held_does_not_hold_it(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", "it"):
        pass
    held = (tmp_path / "lock").read_text()
    looking = "import sys, time; from pathlib import Path; from sweeps.storage import layout\n"
    looking += "real = layout._try_lock\n"
    looking += (
        "def slow(*given):\n    got = real(*given); print('looking', flush=True); sys.stdin.readline(); return got\n"
    )
    looking += "layout._try_lock = slow; print(layout.is_locked(Path(sys.argv[1])))"
    command = [sys.executable, "-c", looking, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "looking\n"
        assert not is_locked(tmp_path / "lock")
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "False\n"
    assert (tmp_path / "lock").read_text() == held
