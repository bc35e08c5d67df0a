"""Concept files: the packaged ones, a user's own, and what a wrong one is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from erasebench.concepts import Catalogue, CatalogueError, Concept, RetainPrompt, View, load_catalogue
from erasebench.concepts.reading import _made_of, _parsed

BALLOON = """
concepts:
  balloon:
    kind: object
    phrase: balloon
    synonyms: [air balloon]
    anchor: sky
    neighbours: [parachute]
    views:
      photo:
        judge: clip-phrase
        label: balloon
        threshold: 0.25
        naming: [a photo of a balloon]
"""


@cache
def catalogue() -> Catalogue:
    return load_catalogue()


def test_importing_and_loading_needs_no_heavy_package() -> None:
    code = (
        "import sys; from erasebench.concepts import load_catalogue; load_catalogue();"
        "print({'torch', 'pandas', 'numpy', 'PIL'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_a_users_concept_is_added(load: Callable[[str], Catalogue]) -> None:
    mine = load(BALLOON)
    view = View(judge="clip-phrase", label="balloon", threshold=0.25, naming=("a photo of a balloon",))
    assert mine.get("balloon") == Concept(
        name="balloon",
        kind="object",
        phrase="balloon",
        synonyms=("air balloon",),
        anchor="sky",
        neighbours=("parachute",),
        views={"photo": view},
        neighbours_phrases=("parachute",),
    )
    assert mine.names() == (*catalogue().names(), "balloon")


def test_a_users_prompts_are_added(load: Callable[[str], Catalogue]) -> None:
    text = """
prompts: {photo: {violence: {naming: [the third act of a western]}, church: {implying: [a place for a wedding]}}}
retain: {photo: [{prompt: a church and a ship, shows: [church, ship]}, {prompt: a bowl of soup}]}
"""
    mine = load(text)
    assert mine.get("violence").views["photo"].naming == ("the third act of a western",)
    assert mine.get("church").views["photo"].implying == ("a place for a wedding",)
    assert mine.get("church").views["photo"].naming == catalogue().get("church").views["photo"].naming
    assert mine.retain("photo") == (
        RetainPrompt("a church and a ship", ("church", "ship")),
        RetainPrompt("a bowl of soup"),
    )
    assert mine.retain("picturebook") == catalogue().retain("picturebook")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("judge:", "jugde:", "concepts: balloon: views: photo: unknown key 'jugde'; nearest: judge"),
        ("anchor:", "anker:", "concepts: balloon: unknown key 'anker'; nearest: anchor"),
        ("    anchor: sky", "    neighbours_phrases: [sky]", "balloon: unknown key 'neighbours_phrases'; nearest: nei"),
        ("concepts:", "concept:", "unknown key 'concept'; nearest: concepts"),
        ("    kind: object\n", "", "concepts: balloon: missing 'kind'"),
        ("judge: clip-phrase\n        label: balloon\n", "{}", "line 11: not valid YAML: "),
        ("        judge: clip-phrase\n        label: balloon\n", "", "photo: missing 'judge', 'label'"),
        ("kind: object", "kind: objct", "concept 'balloon': unknown kind 'objct'; nearest: object"),
        ("phrase: balloon", "phrase: 99", "concepts: balloon: phrase: expected text, found 99"),
        ("phrase: balloon", "phrase: ' '", "concept 'balloon': phrase: an empty text"),
        ("[air balloon]", "air balloon", "balloon: synonyms: expected a list, found the text 'air balloon'"),
        ("[air balloon]", "[air balloon, {}]", "balloon: synonyms: item 2: expected text, found a mapping"),
        ("[air balloon]", "[balloon]", "concept 'balloon': phrase and synonyms: 'balloon' stands twice"),
        ("anchor: sky", "anchor: Balloon", "anchor: the concept would be mapped to itself, 'Balloon'"),
        ("anchor: sky", "anchor: air balloon", "anchor: the concept would be mapped to itself, 'air balloon'"),
        ("[parachute]", "[parashute]", "concept 'balloon': neighbours: unknown concept 'parashute'; nearest: parachut"),
        ("[parachute]", "[balloon]", "concept 'balloon': neighbours: 'balloon' is the concept itself"),
        ("[parachute]", "[parachute, parachute]", "concept 'balloon': neighbours: 'parachute' stands twice"),
        ("  photo:", "  foto:", "concept 'balloon': views: unknown domain 'foto'; nearest: photo"),
        ("threshold: 0.25", "threshold: 1", "views: photo: threshold: 1 is not between 0 and 1"),
        ("threshold: 0.25", "threshold: 0", "views: photo: threshold: 0 is not between 0 and 1"),
        ("threshold: 0.25", "threshold: .nan", "views: photo: threshold: nan is not between 0 and 1"),
        ("threshold: 0.25", "threshold: true", "views: photo: threshold: expected a number, found True"),
        ("threshold: 0.25", "threshold: '0.25'", "threshold: expected a number, found the text '0.25'"),
        ("label: balloon", "label: ''", "concept 'balloon': views: photo: label: an empty text"),
        ("[a photo of a balloon]", "[]", "concept 'balloon': views: photo: no prompts; give 'naming' or 'prompt_set'"),
        ("[a photo of a balloon]", "['']", "concept 'balloon': views: photo: naming: an empty text"),
        ("[a photo of a balloon]", "[x, x]", "concept 'balloon': views: photo: naming: 'x' stands twice"),
        (
            "naming: [a photo of a balloon]",
            "prompt_set: {name: b}",
            "photo: prompt_set: expected text, found a mapping",
        ),
        ("  balloon:", "  Balloon:", "concept 'Balloon': a name is lower case with hyphens, like 'french-horn'"),
        ("  balloon:", "  99:", "concepts: the key 99 is no text; put it in quotes"),
        ("  balloon:", "  church:", "concept 'church' is already in "),
        ("phrase: balloon", "phrase: a\n    phrase: b", "line 6: 'phrase' is given twice"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    load: Callable[[str], Catalogue], tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert BALLOON.count(old) >= 1
    with pytest.raises(CatalogueError) as caught:
        load(BALLOON.replace(old, new, 1))
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml: expected a mapping, found nothing"),
        ("- balloon", "mine.yaml: expected a mapping, found a list"),
        ("concepts:\n  {balloon: ]", "mine.yaml: line 2: not valid YAML: "),
        ("a: 2024-13-45", "mine.yaml: not valid YAML: "),
        ("a: \x00", "mine.yaml: not valid YAML: "),
        ("concepts: {balloon: {kind: object, phrase: b, views: {}}}", "'balloon': views: no domain; give one of pic"),
        ("prompts: {photo: {chruch: {naming: [x]}}}", "prompts: photo: chruch: unknown concept 'chruch'; nearest: chu"),
        ("prompts: {foto: {church: {naming: [x]}}}", "prompts: foto: church: unknown domain 'foto'; nearest: photo"),
        ("prompts: {photo: {person: {naming: [x]}}}", "photo: person: unknown domain 'photo'; known: picturebook"),
        ("prompts: {photo: {church: {naming: [x]}}}", "church: naming: the concept already has such prompts"),
        ("prompts: {photo: {church: {name: [x]}}}", "photo: church: unknown key 'name'; nearest: naming"),
        ("retain: {foto: []}", "retain: foto: unknown domain 'foto'; nearest: photo"),
        ("retain: {photo: [{prompt: x, shows: [chruch]}]}", "retain: photo: 'x': unknown concept 'chruch'; nearest: c"),
        ("retain: {photo: [{prompt: x}, {prompt: x}]}", "retain: photo: 'x' stands twice"),
        ("retain: {photo: [{shows: [church]}]}", "retain: photo: item 1: missing 'prompt'"),
    ],
)
def test_a_bad_file_is_refused(load: Callable[[str], Catalogue], text: str, message: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        load(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"none\.yaml: No such file or directory"):
        load_catalogue([tmp_path / "none.yaml"])


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(BALLOON)
    with pytest.raises(CatalogueError, match=r"concept 'balloon' is already in .*mine\.yaml"):
        load_catalogue([path, path])


def test_a_file_is_read_again_only_if_it_says_something_else(load: Callable[[str], Catalogue]) -> None:
    first = load(BALLOON)
    assert load(BALLOON) is first
    assert load(BALLOON.replace("anchor: sky", "anchor: sea")).get("balloon").anchor == "sea"
    assert load(BALLOON).get("balloon").anchor == first.get("balloon").anchor == "sky"


def test_without_the_c_parser_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = catalogue()
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    for cached in (_parsed, _made_of):
        cached.cache_clear()
    slow = load_catalogue()
    assert slow is not fast
    assert [slow.get(name) for name in slow.names()] == [fast.get(name) for name in fast.names()]
