"""Picturebook's judges name their weights only where these are what was shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erasebench.judges import picturebook
from erasebench.picturebook.weights import WEIGHTS, WeightsError, file_hash, judge_path
from erasebench.registry import JUDGES

READS = {
    "picturebook-detector": ("detector",),
    "picturebook-segmenter": ("detector",),
    "picturebook-style": ("clip",),
    "picturebook-clip": ("clip",),
    "picturebook-q16": ("clip", "q16"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped judges that the plug-ins read instead."""
    for name in ("manifest.json", "detector.safetensors", "clip.safetensors", "q16.safetensors"):
        shutil.copy(WEIGHTS / name, tmp_path / name)
    monkeypatch.setattr(picturebook, "judge_path", lambda name: judge_path(name, tmp_path))
    monkeypatch.setattr(picturebook, "file_hash", lambda name: file_hash(name, tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", READS)
def test_identity_gives_the_hashes(name: str, folder: Path) -> None:
    hashes = "+".join(file_hash(f"{part}.safetensors") for part in READS[name])
    assert JUDGES.get(name).make().identity() == {"version": "1", "weights": hashes}


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in READS.items() for part in parts])
def test_a_plan_learns_that_a_file_is_corrupt_or_missing(name: str, part: str, folder: Path) -> None:
    path = folder / f"{part}.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(WeightsError, match=rf"{part}\.safetensors is corrupt"):
        JUDGES.get(name).make().identity()
    path.unlink()
    with pytest.raises(WeightsError, match=rf"{part}\.safetensors is missing"):
        JUDGES.get(name).make().identity()


def test_identity_loads_no_framework() -> None:
    code = f"""
import sys
from erasebench.registry import JUDGES
for name in {list(READS)!r}:
    JUDGES.get(name).make().identity()
print(*sorted({{"torch", "open_clip", "ultralytics", "transformers"}} & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout == "\n"
