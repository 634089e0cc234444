"""Write what a bug report needs to know about a machine or an error to one text file, without private data."""

import os
import platform
import re
import shlex
import socket
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pipelines.known_facts import cache_folder
from pipelines.provenance import git_state
from sweeps.doctor import Finding
from sweeps.storage.layout import Storage

TOLD = ("MPDIT_", "RAY_", "MLFLOW_", "CUDA_", "OMP_", "MKL_", "TORCH", "NCCL_", "PYTHON")  # variables worth telling
SECRET = re.compile(r"token|secret|passw|credential|api_?key|access_?key|private|auth|cookie", re.IGNORECASE)
LAST_LINES = 20  # of each log
LAST_RUNS = 3
SHORTEST = 4  # letters of a value that is looked for; shorter ones would blot out half the text


def write_report(path: Path, findings: Sequence[Finding], storage: Storage) -> None:
    """The doctor's findings, all versions, the settings in the environment, and the ends of the newest runs' logs."""
    parts = ["mpdit doctor", *[finding.text for finding in findings], *_machine()]
    logs = sorted(storage.root.glob("trials/*/log.txt"), key=lambda log: log.stat().st_mtime)[-LAST_RUNS:]
    for log in logs:
        parts += [f"\n-- the end of {log}", *log.read_text(errors="replace").splitlines()[-LAST_LINES:]]
    _write(path, parts)


def report_error(error: BaseException, arguments: Sequence[str]) -> Path:
    """Keep an error that nobody foresaw, with its traceback; returns the file, in the cache or a temporary folder.

    arguments: of the command that raised it.
    """
    parts = [f"mpdit {shlex.join(arguments)}", "", *traceback.format_exception(error), *_machine()]
    name = f"fault-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    kept, temporary = cache_folder() / "faults" / name, Path(tempfile.gettempdir()) / f"mpdit-{name}"
    try:
        _write(kept, parts)
    except OSError:
        _write(temporary, parts)
        return temporary
    return kept


def _machine() -> list[str]:
    git = git_state()
    return [
        "\n-- system",
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores",
        f"commit {git['commit']}{', changed since' if git['diff'] else ''}",
        "\n-- versions",
        *sorted({f"{one.name}=={one.version}" for one in metadata.distributions()}, key=str.lower),
        "\n-- environment",
        *[f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(TOLD)],
    ]


def _write(path: Path, parts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = without_secrets("\n".join(parts), os.environ) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """The text without the values of secret variables, credentials in addresses, keys, and who and where one is."""
    for name, value in environment.items():
        if SECRET.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, "***")
    text = re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)
    text = re.sub(rf"(?i)(\w*(?:{SECRET.pattern})\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"',;]+", r"\1***", text)
    text = re.sub(r"\b(hf_|ghp_|github_pat_|glpat-|sk-|AKIA|xox[bp]-)[A-Za-z0-9_-]{8,}", "***", text)
    known = {str(Path.home()): "~", socket.gethostname(): "HOST", environment.get("USER", ""): "USER"}
    for word, shown in known.items():
        if len(word) >= SHORTEST and word != "root":
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", shown, text)
    return text
