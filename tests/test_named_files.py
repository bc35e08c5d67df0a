from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from erasebench.named_files import PRESETS, preset_files


def test_a_preset_of_another_package_does_not_replace_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "presets_elsewhere"
    package.mkdir()
    for name in ("quick", "theirs"):
        (package / f"{name}.yaml").write_text("prompts: 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = (EntryPoint("theirs", package.name, "erasebench.presets"),)
    monkeypatch.setattr("erasebench.registry.entry_points", lambda group: points)
    assert preset_files()["quick"] == PRESETS / "quick.yaml" and "theirs" in preset_files()
    assert f"the preset {package / 'quick.yaml'} is left out: another is called 'quick'" in capsys.readouterr().err
