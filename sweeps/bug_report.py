"""Write what a bug report needs to know about a machine to one text file, without private data."""

import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

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
    git = git_state()
    parts = [
        "mpdit doctor",
        *[finding.text for finding in findings],
        "\n-- system",
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores",
        f"commit {git['commit']}{', changed since' if git['diff'] else ''}",
        "\n-- versions",
        *sorted({f"{one.name}=={one.version}" for one in metadata.distributions()}, key=str.lower),
        "\n-- environment",
        *[f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(TOLD)],
    ]
    logs = sorted(storage.root.glob("trials/*/log.txt"), key=lambda log: log.stat().st_mtime)[-LAST_RUNS:]
    for log in logs:
        parts += [f"\n-- the end of {log}", *log.read_text(errors="replace").splitlines()[-LAST_LINES:]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(without_secrets("\n".join(parts), os.environ) + "\n", encoding="utf-8")


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
