"""The folder of the shipped weights, and the check that they are what was shipped.

The folder holds ``pipeline/`` (a diffusers ``StableDiffusionPipeline`` folder), one safetensors file for each judge,
``CARD.md`` and ``manifest.json``, which gives the size and SHA-256 of every file that is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

from erasebench.errors import EraseBenchError
from erasebench.files import hash_file, hash_file_once, write_durably

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the weights that are shipped with the package."""
MANIFEST = "manifest.json"
_CHECKOUT = Path(__file__).parents[2]


class WeightsError(EraseBenchError):
    """A shipped file is missing or not what was shipped; the message names it and says how to restore it."""


class Entry(TypedDict):
    """The manifest's entry for a file."""

    sha256: str
    bytes: int


def pipeline_path(folder: Path = WEIGHTS) -> Path:
    """The folder of the diffusers pipeline in ``folder``, every file of it verified.

    Raises:
        WeightsError: a file is missing or corrupt.
    """
    # The file that every pipeline has is asked for by name: without it, what is listed is not a whole pipeline.
    return _verified_folder(folder, "pipeline", "model_index.json")


def vae_path(folder: Path = WEIGHTS) -> Path:
    """The folder of the pipeline's VAE in ``folder``, every file of it verified; the rest may be missing.

    Raises:
        WeightsError: a file is missing or corrupt.
    """
    return _verified_folder(folder, "pipeline/vae", "config.json")


def judge_path(name: str, folder: Path = WEIGHTS) -> Path:
    """The verified safetensors file of a judge: ``"detector"``, ``"clip"`` or ``"q16"``.

    Raises:
        WeightsError: the file is missing or corrupt.
    """
    return _verified(folder, f"{name}.safetensors")


def file_hash(name: str, folder: Path = WEIGHTS) -> str:
    """The SHA-256 that the manifest gives for a file, such as ``"clip.safetensors"``.

    Raises:
        WeightsError: the manifest is missing, corrupt or does not list the file.
    """
    entry = _manifest(folder).get(name)
    if entry is None:
        raise _error(folder / MANIFEST, f"does not list {name}")
    return entry["sha256"]


def total_bytes(folder: Path = WEIGHTS) -> int:
    """The size of all weights, in bytes, according to the manifest."""
    return sum(entry["bytes"] for entry in _manifest(folder).values())


def write_manifest(folder: Path = WEIGHTS) -> None:
    """Record the size and hash of the pipeline's files and of the judges; the last step of training."""
    files = [*(path for path in folder.glob("pipeline/**/*") if path.is_file()), *folder.glob("*.safetensors")]
    manifest = {
        path.relative_to(folder).as_posix(): Entry(sha256=hash_file(path), bytes=path.stat().st_size)
        for path in sorted(files)
    }
    write_durably(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _manifest(folder: Path) -> dict[str, Entry]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _error(path, "is missing") from None
    except ValueError as error:
        raise _error(path, f"is corrupt ({error})") from None
    if not isinstance(manifest, dict):
        raise _error(path, "is corrupt (not a JSON object)")
    for name, entry in manifest.items():
        if not _is_entry(entry):
            raise _error(path, f"is corrupt ({name} has no sha256 and bytes)")
    return manifest


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str) and isinstance(value.get("bytes"), int)


def _verified_folder(folder: Path, part: str, needed: str) -> Path:
    names = {name for name in _manifest(folder) if name.startswith(f"{part}/")}
    for name in sorted(names | {f"{part}/{needed}"}):
        _verified(folder, name)
    return folder / part


def _verified(folder: Path, name: str) -> Path:
    path, entry = folder / name, _manifest(folder).get(name)
    if entry is None:
        raise _error(folder / MANIFEST, f"does not list {name}")
    if not path.is_file():
        raise _error(path, "is missing")
    digest = hash_file_once(path)
    if digest != entry["sha256"]:
        raise _error(path, f"is corrupt (expected SHA-256 {entry['sha256']}, found {digest})")
    return path


def _error(path: Path, problem: str) -> WeightsError:
    relative = path.relative_to(_CHECKOUT).as_posix() if path.is_relative_to(_CHECKOUT) else path
    return WeightsError(
        f"{path} {problem}; to restore it, run `pip install --force-reinstall --no-deps erasebench`, "
        f"in a checkout `git checkout -- {relative}`, or train anew with `erasebench picturebook train`"
    )
