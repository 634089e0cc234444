"""Checkpoints: tensors and JSON with checksums, written complete or not at all; a damaged one is skipped.

`checkpoints/step-00000600/` holds `state.safetensors` and `manifest.json`; the folder appears by a rename.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mpdit.model.old_names import NAMES, current_name

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
STATE, MANIFEST = "state.safetensors", "manifest.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a run continues from. facts: what JSON can hold, beside the tensors."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk itself, so that a loss of power does not undo them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def path_of(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return folder / f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """The steps that a training could continue from here, in order."""
    return sorted(int(path.parent.name.removeprefix("step-")) for path in folder.glob(f"step-*/{STATE}"))


def is_sound(path: Path) -> bool:
    """Whether a checkpoint's tensors are as they were written."""
    try:
        return bool(_sha256(path / STATE) == json.loads((path / MANIFEST).read_text())["sha256"][STATE])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and remove all but the newest two."""
    from safetensors.torch import save_file

    final = path_of(folder, checkpoint.step)
    partial = folder / f"partial-{checkpoint.step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        save_file(tensors, partial / STATE)
    except (OSError, SafetensorError):
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk it would only take space
        raise
    sha256 = {STATE: _sha256(partial / STATE)}
    manifest = {"step": checkpoint.step, "sha256": sha256, "names": NAMES, "facts": checkpoint.facts}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _flush(partial / STATE)
    _flush(partial / MANIFEST)
    shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
    partial.rename(final)
    _flush(folder)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is not damaged, or return None; each damaged one is named in a warning."""
    from safetensors.torch import load_file

    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if _sha256(path / STATE) != manifest["sha256"][STATE]:
                raise ValueError("its checksum does not match")
            stored = load_file(path / STATE)
            tensors = {current_name(name, manifest.get("names")): tensor for name, tensor in stored.items()}
            return Checkpoint(manifest["step"], tensors, manifest["facts"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s); using the one before", path, error)
    return None


def facts(folder: Path) -> dict[str, Any]:
    """Read the facts of the newest checkpoint, whose tensors may have been removed; {} where there is no checkpoint."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return dict(json.loads((path / MANIFEST).read_text())["facts"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def drop_tensors(folder: Path, keep: int | None = None) -> int:
    """Remove the tensors of every checkpoint, as a finished training does not need them; returns their bytes.

    keep: a step whose checkpoint stays, for a longer training.
    """
    paths = [*folder.glob(f"step-*/{STATE}"), *folder.glob(f"partial-*/{STATE}")]
    paths = [path for path in paths if keep is None or path.parent != path_of(folder, keep)]
    size = sum(path.stat().st_size for path in paths)
    for path in paths:
        path.unlink(missing_ok=True)
    return size
