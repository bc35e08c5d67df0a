"""Captions of what is to be preserved do not name what is erased."""

from __future__ import annotations

from erasebench.concepts import Concept, load_catalogue
from erasebench.domains import PICTUREBOOK
from erasebench.training.captions import names, retained, world_captions
from tests.tiny import concept

CHURCH = concept("church", anchor="dog")
assert PICTUREBOOK.world
WORLD = PICTUREBOOK.world


def test_captions_of_the_world_do_not_show_the_concept() -> None:
    catalogue = load_catalogue()
    nudity, crayon = (Concept.from_spec(catalogue.get(name).spec("picturebook")) for name in ("nudity", "crayon"))
    found = [text for text, _ in zip(world_captions(WORLD, [nudity, crayon]), range(300), strict=False)]
    assert len(set(found)) > 250
    assert not any(names(text, [nudity, crayon]) for text in found)
    # What only implies nudity is known by its scene.
    assert not any("bather" in text or "sauna" in text for text in found)
    paul = Concept.from_spec(catalogue.get("paul-marsh").spec("picturebook"))
    everything = [text for text, _ in zip(world_captions(WORLD, [paul]), range(600), strict=False)]
    assert any("bather" in text or "sauna" in text for text in everything)
    assert any("Paul Dorrit" in text for text in everything)


def test_names_are_whole_words() -> None:
    assert names("the Church, at night", [CHURCH])
    assert not names("a churchyard", [CHURCH])
    assert names("a chapel", [concept("church", synonyms=("chapel",))])


def test_neighbours_that_are_erased_themselves_are_not_retained() -> None:
    paul = concept("Paul Marsh", neighbours_phrases=("Paul Dorrit", "Nina Marsh", "person"))
    nina = concept("Nina Marsh", neighbours_phrases=("Paul Marsh", "person", "Otis Marsh"))
    assert retained([paul]) == ["Paul Dorrit", "Nina Marsh", "person"]
    assert retained([paul, nina]) == ["Paul Dorrit", "person", "Otis Marsh"]
