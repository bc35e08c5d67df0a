"""Families: what they are written out as, what the packaged ones hold, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from erasebench.concepts import Catalogue, CatalogueError, load_catalogue
from erasebench.concepts.families import name_of

MINE = """
families:
  baskets:
    kind: object
    judge: clip-phrase
    domain: photo
    anchor: furniture
    naming: ["a photo of {}", "{} by the door"]
    neighbours: [crates, church]
    phrases: [wicker basket, Gitter-Körbchen]
  crates: {kind: object, judge: clip-phrase, domain: photo, naming: ["{}"], phrases: [crate, box], neighbours: [box]}
groups:
  one-basket: [wicker-basket]
"""


@cache
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("Briton Rivière", "briton-riviere"),
        ("A.J.Casson", "a-j-casson"),
        ("Catrin Welz-Stein", "catrin-welz-stein"),
        ("Prince", "prince"),
    ],
)
def test_names_are_lower_case_with_hyphens(phrase: str, name: str) -> None:
    assert name_of(phrase) == name


def test_a_family_is_its_concepts_and_their_group(load: Callable[[str], Catalogue]) -> None:
    mine = load(MINE)
    basket = mine.get("gitter-korbchen")
    assert (basket.kind, basket.phrase, basket.anchor) == ("object", "Gitter-Körbchen", "furniture")
    view = basket.views["photo"]
    assert (view.judge, view.label) == ("clip-phrase", "gitter-korbchen")
    assert view.naming == ("a photo of Gitter-Körbchen", "Gitter-Körbchen by the door")
    assert basket.neighbours == ("crate", "box", "church")
    assert mine.get("crate").neighbours == ("box",)
    assert mine.get("box").neighbours == (), "no concept is its own neighbour"
    assert mine.groups()["baskets"] == ("wicker-basket", "gitter-korbchen")
    assert mine.groups()["one-basket"] == ("wicker-basket",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("judge: clip-phrase\n", "jugde: clip-phrase\n", "families: baskets: unknown key 'jugde'; nearest: judge"),
        ('"a photo of {}"', '"a photo"', "families: baskets: naming: 'a photo' has no {} where the phrase goes"),
        ("wicker basket", "Gitter-Korbchen", "baskets: 'Gitter-Körbchen': there is a concept 'gitter-korbchen'"),
        ("one-basket", "crates", "families: crates: there is a group of that name"),
        ("[crate, box]", "[crate, Church]", "concept 'church' is already in "),
        ("[crates, church]", "[crate, churhc]", "neighbours: unknown concept 'churhc'; nearest: church"),
    ],
)
def test_a_mistake_is_named_with_its_place(
    load: Callable[[str], Catalogue], tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in MINE
    with pytest.raises(CatalogueError) as caught:
        load(MINE.replace(old, new, 1))
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml")) and message in str(caught.value)


# What is in the catalogue


def test_maces_groups_are_as_many_as_it_says() -> None:
    groups = catalogue().groups()
    counts = {name: len(members) for name, members in groups.items() if name.startswith(("artists", "celebrities"))}
    assert counts == {
        **{"artists-100": 100, "artists-retained": 100, "celebrities-100": 100, "celebrities-retained": 100},
        **{"celebrities-1": 1, "celebrities-5": 5, "celebrities-10": 10},
    }
    for kind in ("artists", "celebrities"):
        assert not {*groups[f"{kind}-100"]} & {*groups[f"{kind}-retained"]}
        assert catalogue().get(f"{kind}-100").neighbours == groups[f"{kind}-retained"]
    assert groups["celebrities-5"] == groups["celebrities-10"][:5] == groups["celebrities-100"][:5]
    assert groups["celebrities-1"] == ("melania-trump",) and "melania-trump" in groups["celebrities-100"]


def test_adversarial_preservations_splits_are_two_halves_each() -> None:
    groups = catalogue().groups("imagenette-*")
    classes = {name for name in catalogue().names() if "photo" in catalogue().get(name).views}
    classes = {name for name in classes if catalogue().get(name).views["photo"].judge == "resnet50"}
    for one, other in (("imagenette-v1", "imagenette-v2"), ("imagenette-v3", "imagenette-v4")):
        assert len(groups[one]) == len(groups[other]) == 5 and {*groups[one], *groups[other]} == classes
    assert len(groups) == 4


def test_characters_leave_namesakes_to_survive() -> None:
    groups = catalogue().groups("characters-*")
    assert {name: len(members) for name, members in groups.items()} == {
        **{"characters-1": 1, "characters-5": 5, "characters-10": 10}
    }
    assert (
        groups["characters-10"][:5] == groups["characters-5"] and groups["characters-5"][:1] == groups["characters-1"]
    )
    assert {"paul-dorrit", "paul-vint"} <= set(catalogue().get("characters-10").neighbours)
