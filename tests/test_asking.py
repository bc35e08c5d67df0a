"""The prompts that a run asks, what each of them shows, and who judges the images."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from erasebench.asking import Asker
from erasebench.concepts import Catalogue, View, load_catalogue
from erasebench.config import make_config
from erasebench.errors import EraseBenchError
from erasebench.models.loading import find_model

CONCEPTS = """concepts:
  hall: {kind: object, phrase: hall, views: {picturebook: {
    judge: picturebook-detector, label: church, naming: [a large hall, a hall]}}}
  nave: {kind: object, phrase: nave, views: {picturebook: {
    judge: picturebook-detector, label: church, naming: [a nave, a hall]}}}
  elsewhere: {kind: object, phrase: it, views: {photo: {judge: resnet50, label: church, naming: [it]}}}
"""
"""Two concepts that have a prompt in common, and one that is known of photographs alone."""


@cache
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture
def own(tmp_path: Path) -> Catalogue:
    path = tmp_path / "concepts.yaml"
    path.write_text(CONCEPTS, encoding="utf-8")
    return load_catalogue([path])


def asker(known: Catalogue | None = None, **options: Any) -> Asker:
    return Asker(make_config({"concepts": ["church"], **options}), known or catalogue(), find_model("picturebook"))


def test_each_prompt_of_concepts_erased_together_shows_its_own() -> None:
    asked = asker(prompts=3, images_per_prompt=2).ask(catalogue().get("church+parachute"))
    assert [prompt.shows for prompt in asked.prompts] == [("church",)] * 6 + [("parachute",)] * 6
    assert [(view.judge, view.label) for view in asked.views] == [
        ("picturebook-detector", "church"),
        ("picturebook-detector", "parachute"),
    ]
    alone = asker(prompts=3, images_per_prompt=2).ask(catalogue().get("church"))
    assert [(one.id, one.seed) for one in asked.prompts[:6]] == [(one.id, one.seed) for one in alone.prompts]
    assert len({(one.id, one.seed) for one in alone.prompts}) == 6 and len({one.id for one in alone.prompts}) == 3


def test_a_prompt_that_two_concepts_have_is_drawn_once_and_shows_both(own: Catalogue) -> None:
    asked = asker(own, prompt_kinds=["naming"]).ask(own.get("hall+nave"))
    assert {prompt.text: prompt.shows for prompt in asked.prompts} == {
        "a large hall": ("hall",),
        "a hall": ("hall", "nave"),
        "a nave": ("nave",),
    }
    assert len(asked.prompts) == 3


def test_other_concepts_are_each_there_once_in_the_order_in_which_they_are_named() -> None:
    church = catalogue().get("church")
    parts, prompts = asker(others=["garbage-truck", "neighbours"], prompts=2).others(church)
    assert [part.name for part in parts] == ["garbage-truck", "gas-pump"]
    assert [prompt.shows for prompt in prompts] == [("garbage-truck",)] * 2 + [("gas-pump",)] * 2
    assert asker().others(church) == ([], ())


def test_fewer_prompts_are_the_first_of_more() -> None:
    church = catalogue().get("church")
    few, more = (asker(prompts=count, retain_prompts=count) for count in (2, 5))
    assert few.ask(church).prompts == more.ask(church).prompts[:2]
    assert few.retain() == more.retain()[:2] and {one.kind for one in more.retain()} == {"retain"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("clip-phrase", View("clip-phrase", "church", 0.5)),
        ("clip-phrase[label=a chapel;threshold=0.3]", View("clip-phrase", "a chapel", 0.3)),
        ("picturebook-clip[label=clip]", View("picturebook-clip", "clip", 0.5)),
    ],
)
def test_a_second_judge_looks_for_the_phrase_or_for_what_it_is_told(text: str, seen: View) -> None:
    assert asker(second_judge=text).ask(catalogue().get("church")).seconds == (seen,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip-frase", "unknown judge 'clip-frase'; nearest: clip-phrase"),
        ("clip-phrase[lable=x]", "unknown option of the second judge clip-phrase 'lable'; nearest: label"),
        ("clip-phrase[label= ]", "the label is .*, which is no text"),
        ("clip-phrase[threshold=high]", "the threshold is 'high', which is no number"),
        ("clip-phrase[threshold=.inf]", "the threshold is inf, which is no number"),
        ("picturebook-detector", "is the first judge of the concept 'church' already"),
        ("picturebook-style", r"cannot judge the concept 'church'.*is asked for as picturebook-style\[label=...\]"),
    ],
)
def test_a_second_judge_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        asker(second_judge=text).ask(catalogue().get("church"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_kinds": ["name"]}, "unknown kind of prompt 'name'; nearest: naming"),
        ({"others": ["neighbors"]}, "unknown other concept 'neighbors'; nearest: neighbours"),
        ({"judges": {"nudnet": "clip-phrase"}}, "unknown judge 'nudnet'; nearest: nudenet"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        asker(**options)


def test_a_concept_that_the_model_does_not_know_or_that_has_no_prompts(own: Catalogue) -> None:
    with pytest.raises(EraseBenchError, match=r"no judge and no prompts in the domain 'picturebook'.* but in: photo"):
        asker(own).ask(own.get("elsewhere"))
    with pytest.raises(EraseBenchError, match="the concept 'hall' has no prompts of the kinds synonym in the domain"):
        asker(own, prompt_kinds=["synonym"]).ask(own.get("hall"))
