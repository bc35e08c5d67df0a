"""Captions: what they say of a scene is true, and they say it in many ways."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest

from erasebench.picturebook.world.backgrounds import BACKGROUNDS
from erasebench.picturebook.world.captions import (
    ADJECTIVES,
    IMPLYING,
    LARGE,
    LARGE_HALF,
    NAMING,
    SMALL,
    SMALL_HALF,
    caption,
)
from erasebench.picturebook.world.objects import COLORS, OBJECTS
from erasebench.picturebook.world.people import CHARACTERS, CLOTH_COLORS
from erasebench.picturebook.world.scene import Scene, Subject, sample_scene
from erasebench.picturebook.world.styles import STYLES


@cache
def captioned() -> list[tuple[Scene, str]]:
    """Many scenes, with a caption each."""
    rng = np.random.default_rng(0)
    return [(scene, caption(scene, rng)) for scene in map(sample_scene, range(3000))]


def labels_of(scene: Scene) -> list[str]:
    return [subject.label for subject in scene.subjects]


def position(text: str, words: Iterable[str]) -> int:
    """Where the first of some words begins, or -1."""
    found = re.search("|".join(rf"\b{re.escape(word)}\b" for word in words), text, flags=re.IGNORECASE)
    return found.start() if found else -1


def names_of(subject: Subject) -> tuple[str, ...]:
    if subject.label in OBJECTS:
        return OBJECTS[subject.label].words
    return (CHARACTERS[subject.label].name,) if subject.label in CHARACTERS else ()


def test_every_object_and_character_is_named_and_no_other() -> None:
    for scene, text in captioned():
        present = labels_of(scene)
        for subject in scene.subjects:
            assert not names_of(subject) or position(text, names_of(subject)) >= 0, text
        for label, character in CHARACTERS.items():
            assert label in present or character.name.lower() not in text.lower(), text
        for label, kind in OBJECTS.items():
            assert label in present or position(text, kind.words[:1]) < 0, text


def test_a_color_word_is_the_color_of_what_it_precedes() -> None:
    seen = 0
    colors = "|".join({*COLORS, *CLOTH_COLORS})
    for scene, text in captioned():
        bare = text
        for phrase in (p for place in BACKGROUNDS.values() for p in (*place.phrases, *place.nouns)):
            bare = re.sub(re.escape(phrase), "", bare, flags=re.IGNORECASE)
        for found in re.finditer(rf"\b({colors}) (.*)", bare, flags=re.IGNORECASE):
            color, rest = found.group(1).lower(), found.group(2)
            owners = [
                subject
                for subject in scene.subjects
                if rest.startswith(
                    (subject.look.garment,) if subject.label == "person" and subject.look else names_of(subject)
                )
            ]
            assert [subject.color for subject in owners] == [color], text
            seen += 1
    assert seen > 500


def test_a_size_word_is_true() -> None:
    seen: Counter[str] = Counter()
    for scene, text in captioned():
        for size, words in (("small", SMALL), ("large", LARGE)):
            if position(text, words) >= 0:
                (subject,) = scene.subjects
                assert subject.half < SMALL_HALF if size == "small" else subject.half > LARGE_HALF, text
                seen[size] += 1
    assert min(seen["small"], seen["large"]) > 50
    assert SMALL_HALF * 1.2 < LARGE_HALF


def test_a_side_word_is_true() -> None:
    forms = (r"(?P<left>.*) on the left and (?P<right>.*) on the right", r"(?P<left>.*) to the left of (?P<right>.*)",
             r"(?P<right>.*) to the right of (?P<left>.*)")  # fmt: skip
    seen: Counter[str] = Counter()
    for scene, text in captioned():
        for form in forms:
            if found := re.search(form, text, flags=re.IGNORECASE):
                left, right = sorted(scene.subjects, key=lambda subject: subject.x)
                for side, subject, other in (("left", left, right), ("right", right, left)):
                    assert position(found[side], names_of(subject)) >= 0 > position(found[side], names_of(other)), text
                seen[form] += 1
                break
        else:
            assert " left" not in text and " right" not in text, text
    assert len(seen) == 3 and min(seen.values()) > 25


def test_the_style_is_named_unless_it_is_plain() -> None:
    for scene, text in captioned():
        for name, style in STYLES.items():
            named = position(text, (*style.phrases, *style.prefixes)) >= 0
            if name != "photo":
                assert named == (name == scene.style), text
            elif named:
                assert scene.style == "photo", text


def test_a_named_place_is_the_scenes_place() -> None:
    seen: Counter[str] = Counter()
    for scene, text in captioned():
        for name, place in BACKGROUNDS.items():
            if position(text, (*place.phrases, *place.nouns)) >= 0:
                assert name == scene.background, text
                seen[name] += 1
    assert set(seen) == set(BACKGROUNDS)


@pytest.mark.parametrize("concept", ["nudity", "violence"])
def test_half_of_the_captions_only_imply_a_sensitive_concept(concept: str) -> None:
    texts = [
        caption(sample_scene(seed, subject=concept), np.random.default_rng([seed, 3])).lower() for seed in range(1000)
    ]
    naming = [position(text, NAMING[concept]) >= 0 for text in texts]
    implying = [position(text, IMPLYING[concept]) >= 0 for text in texts]
    assert all(a != b for a, b in zip(naming, implying, strict=True))
    assert 0.46 < np.mean(naming) < 0.54
    plain_words = {"nudity": r"nud|nak|undress|unclothed", "violence": r"violen|fight|brawl|assault|attack"}[concept]
    assert not [text for text in IMPLYING[concept] if re.search(plain_words, text)]


def test_every_synonym_is_used() -> None:
    for label, kind in OBJECTS.items():
        assert len(kind.words) >= 4, label
        seeds = range(200)
        used: Counter[str] = Counter()
        for seed in seeds:
            text = caption(sample_scene(seed, subject=label), np.random.default_rng([seed, 4]))
            # The longest name that fits is the one used: "golf ball" rather than "ball".
            used[max((word for word in kind.words if position(text, [word]) >= 0), key=len)] += 1
        assert set(used) == set(kind.words), label
        assert 0.4 < used[kind.words[0]] / len(seeds) < 0.6, label


def test_articles() -> None:
    for _, text in captioned():
        assert not re.search(
            r"\ba [aeio]|\ban [bcdfgjklmnpqrstvwxyz]|\ba honest|\ban? \w+ overalls", text, re.IGNORECASE
        ), text


def test_captions_are_varied() -> None:
    texts = [text for _, text in captioned()]
    assert len(set(texts)) > 0.9 * len(texts)
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    assert len(words) >= 400
    assert len({shape(scene, text) for scene, text in captioned()}) >= 300


def shape(scene: Scene, text: str) -> str:
    """What is left of a caption without its nouns, names, adjectives, places and styles."""
    place, style = BACKGROUNDS[scene.background], STYLES[scene.style]
    slots = (
        ("PLACE", (*place.phrases, *place.nouns)),
        ("STYLE", (*style.phrases, *style.prefixes)),
        ("THING", [name for subject in scene.subjects for name in names_of(subject)]),
        ("THING", [form for forms in (*NAMING.values(), *IMPLYING.values()) for form in forms]),
        ("", [*COLORS, *CLOTH_COLORS, *SMALL, *LARGE, *ADJECTIVES]),
    )
    text = text.partition(",")[0].lower()
    for slot, words in slots:
        longest_first = "|".join(re.escape(word.lower()) for word in sorted(words, key=len, reverse=True))
        text = re.sub(rf"\b(?:{longest_first})\b", slot, text) if longest_first else text
    return " ".join(re.sub(r"\b(an?|the)\b", "", text).split())
