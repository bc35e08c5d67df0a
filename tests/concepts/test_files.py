"""YAML as dataclasses: what is given is kept, and what is wrong is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from erasebench import EraseBenchError
from erasebench.concepts._files import NAME, CatalogueError, build, check, check_texts, parse, read
from erasebench.texts import MAX_PROMPT_LENGTH


@dataclass(frozen=True)
class Leg:
    length: float


@dataclass(frozen=True)
class Table:
    name: str
    legs: tuple[Leg, ...]
    marks: Mapping[str, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    round: bool = False
    note: str | None = None


def table(**changed: object) -> dict[str, Any]:
    return {"name": "desk", "legs": [{"length": 1}], **changed}


def test_errors_are_the_users_to_mend() -> None:
    assert issubclass(CatalogueError, EraseBenchError)


def test_mappings_and_lists_are_dataclasses_and_tuples() -> None:
    given = table(marks={"scratches": 3}, words=["old", "oak"], round=True, note=None)
    assert build(Table, given, "here") == Table("desk", (Leg(1.0),), {"scratches": 3}, ("old", "oak"), True)
    assert type(build(Table, table(), "here").legs[0].length) is float


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "here: expected a mapping, found nothing"),
        ({"legs": []}, "here: missing 'name'"),
        ({}, "here: missing 'name', 'legs'"),
        (table(nmae="x"), "here: unknown key 'nmae'; nearest: name"),
        (table(name=["x"]), "here: name: expected text, found a list"),
        (table(legs={}), "here: legs: expected a list, found a mapping"),
        (table(legs=[{"length": 1}, {"length": True}]), "here: legs: item 2: length: expected a number, found True"),
        (table(marks={"scratches": 1.5}), "here: marks: scratches: expected a whole number, found 1.5"),
        (table(marks={"scratches": True}), "here: marks: scratches: expected a whole number, found True"),
        (table(marks={3: 1}), "here: marks: the key 3 is no text; put it in quotes"),
        (table(words=["old", 7]), "here: words: item 2: expected text, found 7"),
        (table(words=["old", "\ud800"]), "here: words: item 2: "),
        (table(round="yes"), "here: round: expected true or false, found the text 'yes'"),
        (table(note=1), "here: note: expected text, found 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(given: object, message: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        build(Table, given, "here")
    assert str(caught.value).startswith(message)


def test_a_file_is_named_if_it_cannot_be_read_or_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(CatalogueError, match=r"mine\.yaml: No such file"):
        read(path)
    path.write_bytes(b"name: desk")
    assert parse(read(path), str(path)) == {"name": "desk"}
    with pytest.raises(CatalogueError, match=r"^mine\.yaml: line 1: not valid YAML"):
        parse(b"name: ]", "mine.yaml")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", " "], "here: an empty text"),
        (["a", "b", "a"], "here: 'a' stands twice"),
        (
            ["x" * (MAX_PROMPT_LENGTH + 1)],
            f"here: a text of {MAX_PROMPT_LENGTH + 1:,} characters; {MAX_PROMPT_LENGTH:,} at",
        ),
    ],
)
def test_texts_differ_and_are_neither_empty_nor_endless(texts: list[str], message: str) -> None:
    check_texts(["a", "b", "x" * MAX_PROMPT_LENGTH], "here")
    with pytest.raises(CatalogueError, match=f"^{message}"):
        check_texts(texts, "here")


def test_an_unknown_name_gets_the_nearest() -> None:
    check("concept", "church", ["church"], "here")
    with pytest.raises(CatalogueError, match=r"^here: unknown concept 'chruch'; nearest: church"):
        check("concept", "chruch", ["church", "tench"], "here")


def test_names_are_lower_case_with_hyphens() -> None:
    assert all(map(NAME.fullmatch, ("church", "french-horn", "characters-5")))
    assert not any(map(NAME.fullmatch, ("Church", "-horn", "french--horn", "french_horn", "horn-", "")))
