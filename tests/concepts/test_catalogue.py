from __future__ import annotations

import json
import pickle
import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import erasebench
from erasebench import EraseBenchError
from erasebench.concepts import (
    Catalogue,
    CatalogueError,
    Concept,
    RetainPrompt,
    View,
    load_catalogue,
)
from erasebench.domains import DOMAINS
from erasebench.errors import UnknownNameError
from erasebench.picturebook.world.captions import IMPLYING, NAMING, caption
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.people import CHARACTERS
from erasebench.picturebook.world.scene import LABELS, sample_scene
from erasebench.picturebook.world.styles import STYLES

PACKAGE = Path(erasebench.__file__).parent
SCRIPT = PACKAGE.parent / "benchmarks" / "make_picturebook_prompts.py"
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


def test_committed_prompts_are_what_the_script_writes() -> None:
    for name, text in runpy.run_path(str(SCRIPT))["documents"]().items():
        assert (PACKAGE / "concepts" / name).read_bytes() == text.encode(), f"run {SCRIPT}"


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


def test_importing_and_loading_needs_no_heavy_package() -> None:
    code = (
        "import sys; from erasebench.concepts import load_catalogue; load_catalogue();"
        "print({'torch', 'pandas', 'numpy', 'PIL'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


# The user's own files


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
    import yaml

    from erasebench.concepts.reading import _made_of, _parsed

    fast = catalogue()
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    for cached in (_parsed, _made_of):
        cached.cache_clear()
    slow = load_catalogue()
    assert slow is not fast
    assert [slow.get(name) for name in slow.names()] == [fast.get(name) for name in fast.names()]


def test_errors_are_the_users_to_mend() -> None:
    assert issubclass(CatalogueError, EraseBenchError)
