"""Prompts of the user's files, and the order of a concept's own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from erasebench.concepts import load_catalogue
from erasebench.config import make_config
from erasebench.plan import make_plan
from erasebench.prompts import interleave, read_prompt_set
from tests.engine.runs import PROMPT_SET_CONCEPT


def test_prompts_and_seeds_of_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concepts.yaml").write_text(PROMPT_SET_CONCEPT)
    with open("good.csv", "w", newline="", encoding="utf-8-sig") as stream:
        rows = [("text", "tags", "seed"), ("a", "dark, old", 5), ("b", "light", 6), ("two\nlines", "dark", 7), ("c",)]
        csv.writer(stream).writerows(rows)
    view = load_catalogue([Path("concepts.yaml")]).get("mine").views["picturebook"]
    assert read_prompt_set(view, {"mine": Path("good.csv")}) == [("a", 5), ("two\nlines", 7)]
    Path("others.csv").write_text("prompt\nx\ny\nz\n")
    made = make_plan(
        make_config(
            {
                **{"concepts": ["mine"], "concept_files": ["concepts.yaml"], "prompt_sets": {"mine": "good.csv"}},
                **{"images_per_prompt": 2, "retain_file": "others.csv", "retain_prompts": 2, "device": "cpu"},
            }
        )
    )
    images, others = made.rows[0].images, made.rows[0].retain
    assert images is not None and others is not None
    assert images.spec["prompts"] == ["a", "a", "two\nlines", "two\nlines"] and images.spec["seeds"] == [5, 6, 7, 8]
    assert others.spec["prompts"] == ["x", "y"] and made.retained == ((), ())


def test_naming_and_implying_prompts_take_turns() -> None:
    assert interleave(["a", "b"], ["x", "y"]) == ["a", "x", "b", "y"]
    assert interleave(["a", "b", "c"], ["x"]) == ["a", "x", "b", "c"]
    assert interleave(["a"], []) == ["a"]


def test_a_picture_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt and seed decide it: the same again would only seem to be one more."""
    monkeypatch.chdir(tmp_path)
    Path("concepts.yaml").write_text(PROMPT_SET_CONCEPT)
    Path("mine.csv").write_text("text,tags,seed\na,dark,5\na,dark,6\na,dark,5\n")
    Path("others.csv").write_text("prompt\nx\ny\nx\n")
    made = make_plan(
        make_config(
            {
                **{"concepts": ["mine"], "concept_files": ["concepts.yaml"], "prompt_sets": {"mine": "mine.csv"}},
                **{"images_per_prompt": 2, "retain_file": "others.csv", "device": "cpu"},
            }
        )
    )
    images, others = made.rows[0].images, made.rows[0].retain
    assert images is not None and others is not None
    assert images.spec["prompts"] == ["a"] * 3 and images.spec["seeds"] == [5, 6, 7]
    assert others.spec["prompts"] == ["x", "y"]
