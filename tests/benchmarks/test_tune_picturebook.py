"""Settings to try, and which of them win."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import tune_picturebook
from benchmarks.tune_picturebook import (
    COLUMNS,
    CONCEPTS,
    GRIDS,
    RESULTS,
    add_row,
    as_text,
    by_setting,
    prompts_of,
    rank,
    read_rows,
    retained,
    settings_of,
)
from erasebench.registry import METHODS

ROOT = Path(__file__).parents[2]


def row(settings: str, naming: float, clip: float, concept: str = "church") -> dict[str, str]:
    figures = {"naming": f"{naming}", "other_words": "0.5", "clip": f"{clip}"}
    return {"method": "esd-u", "concept": concept, "settings": settings, "problem": "", **figures}


def test_settings_are_all_combinations() -> None:
    grid = {"steps": [10, 20], "learning_rate": [0.1, 0.2], "rank": 4}
    found = [*settings_of(grid)]
    assert found[0] == {"steps": 10, "learning_rate": 0.1, "rank": 4}
    assert len({as_text(settings) for settings in found}) == 4 and {settings["rank"] for settings in found} == {4}


def test_settings_survive_a_cell_of_the_csv() -> None:
    settings = {"steps": 20, "learning_rate": 1e-5, "parameters": "xattn"}
    assert yaml.safe_load(as_text(settings)) == settings
    assert "\n" not in as_text({f"option_{k}": k for k in range(40)})


def test_every_method_of_the_grids_takes_its_settings() -> None:
    grids = yaml.safe_load(GRIDS.read_text(encoding="utf-8"))
    for name, grid in grids.items():
        plugin = METHODS.get(name)
        settings = [*settings_of(grid)]
        assert len(settings) == 4, name
        for chosen in settings:
            plugin.make(**{**plugin.presets, **chosen})


def test_what_leaves_the_concept_is_worse_only_among_what_keeps_other_pictures() -> None:
    best_last = [[row("a", 0.0, 0.5)], [row("b", 0.9, 0.94)], [row("c", 0.5, 0.96)], [row("d", 0.1, 0.95)]]
    ranks = [rank(rows) for rows in best_last]
    assert ranks == sorted(set(ranks))
    # Of two concepts, the worse counts for what is kept.
    assert rank([row("a", 0, 0.99), row("a", 0, 0.9, "nudity")]) == (False, 0.9)
    diverged = {**row("e", 0, 0), "naming": "", "other_words": "", "clip": "", "problem": "diverged"}
    assert rank([diverged]) == (False, 0.0)


def test_a_setting_has_to_be_tried_on_every_concept() -> None:
    rows = [row("a", 0.1, 1), row("b", 0.2, 1), row("b", 0.2, 1, "nudity"), {**row("x", 0, 1), "method": "ca"}]
    assert by_setting(rows, "esd-u", ["church"]) == ["a", "b"]
    assert by_setting(rows, "esd-u", CONCEPTS) == ["b"]


def test_rows_are_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tuning.csv"
    assert read_rows(path) == []
    for settings in ("a", "b"):
        add_row(path, row(settings, 0.1, 1))
    assert [found["settings"] for found in read_rows(path)] == ["a", "b"]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_the_winners_are_those_of_the_methods_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tune_picturebook.py", "--choose", "--out", str(RESULTS)])
    tune_picturebook.main()
    chosen = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"esd-u", "mace"} <= set(chosen)
    shipped = yaml.safe_load((ROOT / "methods" / "picturebook.yaml").read_text(encoding="utf-8"))
    for name, text in chosen.items():
        assert yaml.safe_load(text).items() <= shipped[name].items(), name


def test_prompts_name_a_concept_or_use_other_words() -> None:
    assert all("church" in text.lower() for text in prompts_of("church", "naming", 4))
    assert not any("church" in text.lower() for text in prompts_of("church", "other", 4))
    assert len(prompts_of("nudity", "other", 4)) == 4
    assert not any("church" in text.lower() for text in retained("church", 8))
