"""Prompts of the user's files, and the order of a concept's own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from erasebench.concepts import Prompt, View, load_catalogue
from erasebench.config import make_config
from erasebench.errors import EraseBenchError
from erasebench.plan import make_plan
from erasebench.prompts import own_prompts, read_pairs, read_prompt_set, repeat
from tests.engine.runs import PROMPT_SET_CONCEPT


def test_prompts_and_seeds_of_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concepts.yaml").write_text(PROMPT_SET_CONCEPT)
    with open("good.csv", "w", newline="", encoding="utf-8-sig") as stream:
        rows = [("text", "tags", "seed"), ("a", "dark, old", 5), ("b", "light", 6), ("two\nlines", "dark", 7), ("c",)]
        csv.writer(stream).writerows(rows)
    view = load_catalogue([Path("concepts.yaml")]).get("mine").views["picturebook"]
    assert read_prompt_set(view, {"mine": Path("good.csv")}) == [
        Prompt("a", "a", 5, "set"),
        Prompt("two\nlines", "two\nlines", 7, "set"),
    ]
    Path("others.csv").write_text("prompt\nx\ny\nz\n")
    made = make_plan(
        make_config(
            {
                **{"concepts": ["mine"], "concept_files": ["concepts.yaml"], "prompt_sets": {"mine": "good.csv"}},
                **{"images_per_prompt": 2, "retain_file": "others.csv", "retain_prompts": 2, "device": "cpu"},
            }
        )
    )
    images, others = made.rows[0].probes["concept"].images, made.rows[0].probes["retain"].images
    assert images is not None and others is not None
    assert images.spec["prompts"] == ["a", "a", "two\nlines", "two\nlines"] and images.spec["seeds"] == [5, 6, 7, 8]
    assert others.spec["prompts"] == ["x", "y"] == others.spec["ids"]
    assert made.retained == (Prompt("x", "x", 0, "retain"), Prompt("y", "y", 0, "retain"))


@pytest.mark.parametrize(
    ("kinds", "texts"),
    [
        (("naming", "implying"), ["a", "x", "b", "c"]),
        (("implying", "naming", "synonym"), ["a", "x", "s", "b", "t", "c"]),
        (("synonym",), ["s", "t"]),
        ((), []),
    ],
)
def test_kinds_of_prompts_take_turns(kinds: tuple[str, ...], texts: list[str]) -> None:
    view = View("judge", "label", naming=("a", "b", "c"), implying=("x",), synonyms=("s", "t"))
    prompts = own_prompts(view, kinds, 3)
    assert [prompt.text for prompt in prompts] == texts
    of_kind = {**dict.fromkeys("abc", "naming"), "x": "implying", **dict.fromkeys("st", "synonym")}
    assert all(prompt == Prompt(prompt.text, prompt.text, 3, of_kind[prompt.text]) for prompt in prompts)


def test_synonyms_are_asked_for_by_the_configuration() -> None:
    config = {"concepts": ["church"], "prompts": 3, "prompt_kinds": "synonym,naming", "device": "cpu"}
    (row,) = make_plan(make_config(config)).rows
    assert [prompt.kind for prompt in row.probes["concept"].prompts] == ["naming", "synonym", "naming"]
    assert row.probes["concept"].images is not None and row.probes["concept"].images.spec["ids"] == [
        prompt.id for prompt in row.probes["concept"].prompts
    ]
    with pytest.raises(EraseBenchError, match="unknown kind of prompt 'synonyms'; nearest: synonym"):
        make_plan(make_config(config, {"prompt_kinds": ["synonyms"]}))
    with pytest.raises(EraseBenchError, match="'church' has no prompts of the kinds none in the domain"):
        make_plan(make_config(config, {"prompt_kinds": []}))


def test_a_prompt_is_repeated_with_the_seeds_that_follow_its_own() -> None:
    prompt, other = Prompt("i", "a", 5, "naming"), Prompt("j", "a", 5, "naming")
    assert [(one.id, one.seed) for one in repeat([prompt, other], 2)] == [("i", 5), ("i", 6), ("j", 5), ("j", 6)]


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
    images, others = made.rows[0].probes["concept"].images, made.rows[0].probes["retain"].images
    assert images is not None and others is not None
    assert images.spec["prompts"] == ["a"] * 3 and images.spec["seeds"] == [5, 6, 7]
    assert others.spec["prompts"] == ["x", "y"]


def test_pairs_of_a_csv_file_may_have_a_blank_second_and_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('without,note,with\n"a house, red",x,a church\n,,church\n', encoding="utf-8-sig")
    assert read_pairs(path) == [("a church", "a house, red"), ("church", "")]
