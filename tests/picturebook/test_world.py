from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from erasebench import EraseBenchError
from erasebench.errors import UnknownNameError
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
from erasebench.picturebook.world.people import CHARACTERS, CLOTH_COLORS, random_look
from erasebench.picturebook.world.scene import (
    LABELS,
    Picture,
    Scene,
    Subject,
    kind_of,
    render,
    sample_scene,
)
from erasebench.picturebook.world.styles import STYLES

SEEDS = range(250)


@cache
def pictures() -> list[tuple[Scene, Picture]]:
    return [(scene, render(scene)) for scene in map(sample_scene, SEEDS)]


@cache
def captioned() -> list[tuple[Scene, str]]:
    """Many scenes, with a caption each."""
    rng = np.random.default_rng(0)
    return [(scene, caption(scene, rng)) for scene in map(sample_scene, range(3000))]


def digest(seeds: Iterable[int]) -> str:
    summary = hashlib.sha256()
    for scene in map(sample_scene, seeds):
        picture = render(scene)
        for array in (picture.image, picture.masks, picture.boxes):
            summary.update(array.tobytes())
        summary.update(" ".join((*picture.labels, caption(scene, np.random.default_rng(scene.seed)))).encode())
    return summary.hexdigest()


# Scenes and pictures


def test_a_seed_gives_the_same_bytes_in_every_process() -> None:
    here = digest(range(40))
    assert digest(range(40)) == here != digest(range(1, 41))
    code = "from test_world import digest; print(digest(range(40)))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == here


def test_every_seed_gives_another_picture() -> None:
    assert len({picture.image.tobytes() for _, picture in pictures()}) == len(SEEDS)


def test_masks_and_boxes_agree_with_each_other_and_with_the_labels() -> None:
    for scene, picture in pictures():
        assert picture.image.shape == (64, 64, 3) and picture.image.dtype == np.uint8
        assert picture.labels == tuple(subject.label for subject in scene.subjects)
        assert picture.masks.shape == (len(picture.labels), 64, 64) and picture.masks.dtype == np.bool_
        assert picture.boxes.shape == (len(picture.labels), 4) and picture.boxes.dtype == np.float32
        assert (picture.masks.sum(axis=0) <= 1).all(), "a pixel belongs to two subjects"
        for mask, (x0, y0, x1, y1) in zip(picture.masks, picture.boxes.astype(int), strict=True):
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum() > 0
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_the_first_of_two_objects_is_the_left_one() -> None:
    pairs = [(scene, picture) for scene, picture in pictures() if len(scene.subjects) == 2]
    assert len(pairs) > 20
    for scene, picture in pairs:
        left, right = (np.flatnonzero(mask.any(axis=0)).mean() for mask in picture.masks)
        assert left < 32 < right
        assert scene.subjects[0].label != scene.subjects[1].label


@pytest.mark.parametrize("label", LABELS)
def test_a_labels_pixels_are_where_its_mask_says(label: str) -> None:
    for seed in range(5):
        scene = sample_scene(seed, subject=label, style="photo")
        picture = render(scene)
        empty = render(replace(scene, subjects=()))
        changed = np.abs(picture.image.astype(int) - empty.image).max(axis=2)
        (mask,) = picture.masks
        assert mask.mean() > 0.05, "too small to see"
        # The light of a photo falls from another side in the empty picture: up to 9 % of the brightness.
        assert (changed[mask] > 24).mean() > 0.7, "the mask covers pixels that show nothing"
        near = np.zeros((66, 66), dtype=bool)
        for dy in range(3):
            for dx in range(3):
                near[dy : dy + 64, dx : dx + 64] |= mask
        assert changed[~near[1:65, 1:65]].max(initial=0) < 64, "pixels of the subject lie outside its mask"


@pytest.mark.parametrize("style", STYLES)
def test_every_subject_and_background_renders_in_every_style(style: str) -> None:
    places = [*BACKGROUNDS] * 3
    for seed, (label, background) in enumerate(zip(LABELS, places, strict=False)):
        scene = sample_scene(seed, subject=label, style=style, background=background)
        assert (scene.style, scene.background, scene.subjects[0].label) == (style, background, label)
        picture = render(scene)
        assert picture.labels == (label,)
        # Even in grey or two inks, the picture is not flat where the subject is.
        assert picture.image[picture.masks[0]].std() > 12


def test_styles_are_plainly_different() -> None:
    for seed in range(6):
        scene = sample_scene(seed, kind="object")
        drawn = {style: render(replace(scene, style=style)).image.astype(int) for style in STYLES}
        for a, b in combinations(STYLES, 2):
            assert np.abs(drawn[a] - drawn[b]).mean() > 8, (seed, a, b)


def test_backgrounds_are_plainly_different() -> None:
    for seed in range(6):
        scene = sample_scene(seed, kind="empty", style="photo")
        drawn = {place: render(replace(scene, background=place)).image.astype(int) for place in BACKGROUNDS}
        for a, b in combinations(BACKGROUNDS, 2):
            assert np.abs(drawn[a] - drawn[b]).mean() > 8, (seed, a, b)


def test_the_worlds_extent() -> None:
    assert len(OBJECTS) == 10
    assert {"photo", "van-gogh", "crayon"} < set(STYLES) and len(STYLES) >= 8
    assert len(BACKGROUNDS) >= 8
    scenes = [scene for scene, _ in captioned()]
    seen = Counter(label for scene in scenes for label in map(kind_of, labels_of(scene)))
    empty = sum(not scene.subjects for scene in scenes)
    assert set(seen) == {"object", "character", "person", "nudity", "violence"}
    assert min(*seen.values(), empty) > 100


def labels_of(scene: Scene) -> list[str]:
    return [subject.label for subject in scene.subjects]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subject": "parashute"}, r"unknown concept 'parashute'; nearest: parachute"),
        ({"subject": "paul-march"}, r"unknown concept 'paul-march'; nearest: paul-marsh"),
        ({"style": "vangogh"}, r"unknown style 'vangogh'; nearest: van-gogh"),
        ({"background": "mountain"}, r"unknown background 'mountain'; nearest: mountains"),
        ({"kind": "pairs"}, r"unknown kind of scene 'pairs'; nearest: pair"),
        ({"subject": "van-gogh"}, r"'van-gogh' is a style, not a subject; use style='van-gogh' \(--style van-gogh\)"),
        ({"style": "church"}, r"'church' is a subject, not a style; use subject='church' \(--subject church\)"),
        ({"style": "###"}, r"unknown style '###'; known: photo, van-gogh"),
        ({"kind": "pair", "subject": "nudity"}, r"'nudity' is no subject of a scene of kind 'pair'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message) as caught:
        sample_scene(0, **arguments)
    assert isinstance(caught.value, EraseBenchError) and isinstance(caught.value, ValueError)


# People


def test_characters_share_names_and_never_looks() -> None:
    assert len(CHARACTERS) >= 16
    names = [character.name.split() for character in CHARACTERS.values()]
    assert max(Counter(first for first, _ in names).values()) >= 3
    assert max(Counter(last for _, last in names).values()) >= 3
    assert len({" ".join(name) for name in names}) == len(CHARACTERS)
    assert len({character.look.signature for character in CHARACTERS.values()}) == len(CHARACTERS)


def test_nobody_in_particular_looks_like_a_character() -> None:
    rng = np.random.default_rng(0)
    reserved = {character.look.signature for character in CHARACTERS.values()}
    assert not reserved & {random_look(rng).signature for _ in range(3000)}


# Captions


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
