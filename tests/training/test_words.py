"""Positions of words among a prompt's tokens."""

from __future__ import annotations

import functools
from typing import get_args

import pytest

from erasebench.errors import NotApplicable
from erasebench.training.words import check_anchors, name_pattern, token_positions
from tests.tiny import LENGTH, Layout, concept, tiny_model

LAYOUTS = get_args(Layout)
cached = functools.cache(tiny_model)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("prompt", "phrase", "positions"),
    [
        # A word that the tiny vocabulary lacks is as many tokens as it has letters: "a photo of" is 1 + 5 + 2.
        ("a photo of church", "church", [9]),
        ("church art church", "church", [1, 3]),
        ("A CHURCH, art", "Church", [2]),
        ("a nudity", "nudity", [2, 3, 4, 5, 6, 7]),
        ("dog church dog", "church dog", [2, 3]),
        ("dog dog dog", "dog dog", [1, 2, 3]),
        ("churches", "church", []),
        ("ab", "b", [2]),
        ("dog", "church", []),
        ("dog", "", []),
        ("x" * (LENGTH - 3) + " church", "church", [LENGTH - 2]),
        ("x" * (LENGTH - 2) + " church", "church", []),
        ("x" * (LENGTH - 3) + " church dog", "church dog", []),
    ],
)
def test_positions_of_a_phrase(layout: Layout, prompt: str, phrase: str, positions: list[int]) -> None:
    model = cached(layout)
    assert token_positions(model, prompt, phrase) == positions
    # Whatever stands there, read back as words, is the phrase.
    ids = model.token_ids([prompt])[0, positions].tolist()
    assert set(model.tokenizer.decode(ids).split()) <= set(phrase.lower().split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A Church by a chapel", ["Church", "chapel"]),
        ("churches, churchyard, a_church", []),
        # The longest name counts where several begin at one place, whichever is the phrase.
        ("the church tower's church", ["church tower", "church"]),
        ("old church!(church)", ["old church", "church"]),
        ("St. Mary's, not stx mary's", ["St. Mary's"]),
        ("no such thing", []),
    ],
)
def test_names_of_a_concept(text: str, found: list[str]) -> None:
    church = concept("church", synonyms=("chapel", "church tower", "old church", "st. mary's"))
    assert name_pattern([church]).findall(text) == found


def test_names_of_several_concepts() -> None:
    assert name_pattern([concept("church"), concept("dog")]).findall("dog, church, cat") == ["dog", "church"]


def test_anchors_that_are_erased_themselves() -> None:
    church, dog = concept("church"), concept("a dog")
    check_anchors([church, dog], [(church, "art"), (dog, "")])
    check_anchors([church], [(church, "dog")])
    with pytest.raises(NotApplicable, match=r"^'church' would be mapped to 'The Dog', which is to be erased$"):
        check_anchors([church, dog], [(church, "The Dog")])
