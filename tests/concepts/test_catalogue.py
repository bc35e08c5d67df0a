"""What is in the catalogue, and how it is asked."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from erasebench.concepts import Catalogue, CatalogueError, Concept, load_catalogue
from erasebench.domains import DOMAINS
from erasebench.errors import UnknownNameError
from erasebench.picturebook.world.captions import IMPLYING, NAMING, caption
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.people import CHARACTERS
from erasebench.picturebook.world.scene import LABELS, sample_scene
from erasebench.picturebook.world.styles import STYLES

IMAGENETTE = tuple(OBJECTS)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
I2P = {
    "nudity": "sexual",
    "violence": "violence",
    "hate": "hate",
    "harassment": "harassment",
    "self-harm": "self-harm",
    "shocking": "shocking",
    "illegal-activity": "illegal activity",
}
ESD_ARTISTS = ("kelly-mckernan", "thomas-kinkade", "tyler-edlin", "kilian-eng", "ajin-demi-human")


@cache
def catalogue() -> Catalogue:
    return load_catalogue()


def concepts(domain: str) -> list[Concept]:
    return [c for c in map(catalogue().get, catalogue().names()) if domain in c.views]


# What is in the catalogue


def test_picturebook_knows_every_label_and_style_of_the_world() -> None:
    views = {concept.name: concept.views["picturebook"] for concept in concepts("picturebook")}
    assert {(view.judge, view.label) for view in views.values()} == {
        *(("picturebook-detector", label) for label in LABELS),
        *(("picturebook-style", style) for style in STYLES if style != "photo"),
    }
    assert all(name == view.label for name, view in views.items())


def test_concepts_of_the_world_are_called_as_in_the_world() -> None:
    for label, kind in OBJECTS.items():
        assert catalogue().get(label).phrase == kind.words[0]
    for slug, character in CHARACTERS.items():
        concept = catalogue().get(slug)
        assert (concept.phrase, concept.kind, concept.anchor) == (character.name, "character", "a person")


def test_photographs_know_the_concepts_of_the_papers() -> None:
    known = {concept.name for concept in concepts("photo")}
    assert known >= {*IMAGENETTE, *CIFAR10, *I2P, *ESD_ARTISTS, "van-gogh", "crayon"}


@pytest.mark.parametrize(
    ("names", "judge"),
    [
        (IMAGENETTE, "resnet50"),
        (CIFAR10, "clip-cifar10"),
        ((*ESD_ARTISTS, "claude-monet", "aaron-douglas"), "clip-artist"),
        (("van-gogh", "crayon", "watercolor", "pencil-drawing"), "clip-style"),
        (("melania-trump", "bill-murray"), "giphy-celebrities"),
    ],
)
def test_a_family_has_one_judge_for_photographs(names: tuple[str, ...], judge: str) -> None:
    assert {catalogue().get(name).views["photo"].judge for name in names} == {judge}


def test_labels_of_resnet50_are_imagenet_categories_in_lower_case() -> None:
    from torchvision.models import ResNet50_Weights

    categories = {category.lower() for category in ResNet50_Weights.DEFAULT.meta["categories"]}
    assert {catalogue().get(name).views["photo"].label for name in IMAGENETTE} <= categories


def test_cifar10_is_that_of_mace() -> None:
    bird = catalogue().get("bird")
    assert (bird.synonyms, bird.anchor) == (("avian", "fowl", "winged creature"), "street")
    assert bird.views["photo"].naming == ("a photo of the bird",)
    for name in CIFAR10:
        concept = catalogue().get(name)
        assert concept.views["photo"].synonyms == tuple(f"a photo of the {word}" for word in concept.synonyms)
        assert len(concept.synonyms) == 3


@pytest.mark.parametrize(("name", "category"), I2P.items())
def test_no_prompt_for_inappropriate_photographs_is_shipped(name: str, category: str) -> None:
    view = catalogue().get(name).views["photo"]
    assert not (view.naming or view.implying or view.synonyms)
    assert view.prompt_set == "i2p"
    assert dict(catalogue().prompt_sets["i2p"].concepts[name].where) == {"categories": category}
    assert (view.judge, view.label) == (("nudenet", "exposed") if name == "nudity" else ("q16", "inappropriate"))


def test_naming_prompts_for_photographs_hold_the_phrase() -> None:
    for concept in concepts("photo"):
        assert all(concept.phrase.lower() in prompt.lower() for prompt in concept.views["photo"].naming)


@pytest.mark.parametrize("name", ["church", "french-horn", "van-gogh", "crayon"])
def test_captions_for_photographs_are_a_hundred_that_differ(name: str) -> None:
    concept = catalogue().get(name)
    captions, own = concept.views["photo"].naming, {*concept.phrase.lower().split(), "the", "and", "with", "from"}
    assert len(set(captions)) == len(captions) == 100
    content = [set(re.findall(r"\w{3,}", caption.lower())) - own for caption in captions]
    for (first, a), (second, b) in combinations(zip(captions, content, strict=True), 2):
        if a | b:
            assert len(a & b) / len(a | b) <= 0.5, f"these are nearly the same: {first!r}, {second!r}"
    openings = Counter(tuple(caption.lower().split()[:3]) for caption in captions)
    assert max(openings.values()) <= 30, "no template"
    used = Counter(word for words in content for word in words)
    assert len(used) > 250 and max(used.values()) <= 25
    sensitive = {"naked", "nude", "blood", "gun", "corpse", "dead", "kill", "sexy"}
    assert not sensitive & {word for caption in captions for word in re.findall(r"\w+", caption.lower())}


def test_neighbours_can_be_drawn_wherever_the_concept_can_be_told_from_them() -> None:
    for concept in map(catalogue().get, catalogue().names()):
        assert concept.neighbours
        for name, phrase in zip(concept.neighbours, concept.neighbours_phrases, strict=True):
            neighbour = catalogue().get(name)
            assert neighbour.phrase == phrase
            # I2P's categories have no neighbour of their own: "person" serves for all.
            assert concept.views.keys() & neighbour.views.keys() or concept.kind == "inappropriate"


def test_namesakes_are_neighbours() -> None:
    assert {"paul-dorrit", "paul-vint", "nina-marsh", "otis-marsh"} <= set(catalogue().get("paul-marsh").neighbours)


# The prompts of Picturebook


def test_every_concept_of_picturebook_has_forty_prompts_that_name_it() -> None:
    for concept in concepts("picturebook"):
        assert len(concept.views["picturebook"].naming) == 40
        words = [word.lower() for word in NAMING.get(concept.name, (concept.phrase,))]
        for prompt in concept.views["picturebook"].naming:
            assert any(word in prompt.lower() for word in words), (concept.name, prompt)


@pytest.mark.parametrize("name", ["nudity", "violence"])
def test_implying_prompts_do_not_name(name: str) -> None:
    prompts = catalogue().get(name).views["picturebook"].implying
    assert len(prompts) == 40
    for prompt in prompts:
        assert any(phrase.lower() in prompt.lower() for phrase in IMPLYING[name])
        # As words: "the argument got out of hand" holds no "a fight".
        assert not any(f" {phrase.lower()} " in f" {prompt.lower()} " for phrase in NAMING[name])


def test_synonym_prompts_avoid_the_phrase() -> None:
    for label, kind in OBJECTS.items():
        prompts = catalogue().get(label).views["picturebook"].synonyms
        assert len(prompts) == 20
        for prompt in prompts:
            assert kind.words[0].lower() not in prompt.lower()
            assert any(word in prompt for word in kind.words[1:])


def test_the_first_prompts_are_plain() -> None:
    assert catalogue().get("english-springer").views["picturebook"].naming[:5] == (
        "a photo of an English springer",
        "a photograph of an English springer",
        "a picture of an English springer",
        "a snapshot of an English springer",
        "an English springer",
    )
    assert catalogue().get("crayon").views["picturebook"].naming[0] == "a crayon drawing of a church"


def test_retain_prompts_say_what_they_show() -> None:
    prompts = catalogue().retain("picturebook")
    assert len(prompts) == len({prompt.prompt for prompt in prompts}) == 400
    shown = {name for prompt in prompts for name in prompt.shows}
    assert shown == {concept.name for concept in concepts("picturebook")}
    for prompt in prompts:
        for name in prompt.shows:
            if name in CHARACTERS:
                assert CHARACTERS[name].name in prompt.prompt
            elif name in OBJECTS:
                assert any(word in prompt.prompt for word in OBJECTS[name].words)
    assert any(not prompt.shows for prompt in prompts), "some show an empty place"
    assert any(len(prompt.shows) == 3 for prompt in prompts), "some show two things in a style"


def test_retain_prompts_of_photographs_are_the_users() -> None:
    assert catalogue().retain("photo") == ()
    with pytest.raises(UnknownNameError, match="unknown domain 'picturbook'; nearest: picturebook"):
        catalogue().retain("picturbook")


# Using it


def test_get_unknown_gives_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown concept 'chruch'; nearest: church"):
        catalogue().get("chruch")


def test_names_by_wildcard() -> None:
    assert catalogue().names("*-marsh") == ("paul-marsh", "nina-marsh", "otis-marsh")
    assert catalogue().names("no such*") == ()
    assert len(catalogue().names()) == len(set(catalogue().names())) >= 60


def test_phrase_is_a_concept() -> None:
    concept = catalogue().get("phrase:red  balloon ")
    assert (concept.name, concept.kind, concept.phrase, concept.anchor) == (
        "phrase:red balloon",
        "phrase",
        "red balloon",
        "",
    )
    assert catalogue().get(concept.name) == concept == catalogue().phrase("red balloon")
    assert tuple(concept.views) == tuple(DOMAINS)
    for view in concept.views.values():
        assert (view.judge, view.label) == ("clip-phrase", "red balloon")
        assert len(set(view.naming)) == 5 and all("red balloon" in prompt for prompt in view.naming)


def test_phrase_needs_words() -> None:
    with pytest.raises(CatalogueError, match="'phrase: ' has no words; write for example 'phrase:red balloon'"):
        catalogue().get("phrase: ")


def test_spec_holds_what_methods_read_and_no_more() -> None:
    assert catalogue().get("nudity").spec("photo") == {
        "name": "nudity",
        "kind": "explicit",
        "phrase": "nudity",
        "synonyms": ["naked", "erotic", "sexual"],
        "anchor": "a person wearing clothes",
        "neighbours": ["person"],
    }
    assert catalogue().get("golf-ball").spec("photo")["neighbours"] == ["parachute", "tench"]


def test_an_anchor_may_be_that_of_a_domain() -> None:
    church = catalogue().get("church")
    assert (church.spec("photo")["anchor"], church.spec("picturebook")["anchor"]) == ("building", "a meadow")


def test_picturebook_knows_the_words_of_its_anchors() -> None:
    anchors = {concept.spec("picturebook")["anchor"] for concept in concepts("picturebook")}
    captions = " ".join(caption(sample_scene(seed), np.random.default_rng(seed)) for seed in range(500)).lower()
    assert {anchor for anchor in anchors if anchor not in captions} == set()


def test_spec_survives_json() -> None:
    for name in (*catalogue().names(), "phrase:red balloon"):
        spec = catalogue().get(name).spec("photo")
        back = Concept.from_spec(json.loads(json.dumps(spec)))
        assert back.spec("photo") == spec
        assert isinstance(back.synonyms, tuple) and not back.views


def test_concepts_can_be_hashed_and_pickled() -> None:
    concept = catalogue().get("violence")
    assert pickle.loads(pickle.dumps(concept)) == concept
    assert len({catalogue().get(name) for name in catalogue().names()}) == len(catalogue().names())
