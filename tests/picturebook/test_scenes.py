"""The version of the world follows its source."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from erasebench.picturebook import scenes


def test_the_version_changes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scenes.world_version()
    copy = shutil.copytree(scenes.WORLD, tmp_path / "world", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(scenes, "WORLD", copy)
    version = scenes.world_version.__wrapped__
    assert version() == before
    with open(copy / "scene.py", "a", encoding="utf-8") as source:
        source.write("#\n")
    assert version() != before
