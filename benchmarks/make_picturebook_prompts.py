"""Write the prompts of the Picturebook domain: ``python benchmarks/make_picturebook_prompts.py``.

The prompts are captions of scenes that no training has seen (their seeds start at ``FIRST_SEED``), so the two files
that this writes change only when the world or its caption grammar does; then commit them again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np

from erasebench.grammar import with_article
from erasebench.picturebook.world.captions import IMPLYING, NAMING, caption
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.people import CHARACTERS
from erasebench.picturebook.world.scene import LABELS, Scene, sample_scene
from erasebench.picturebook.world.styles import STYLES

FIRST_SEED = 2_500_000_000
SEEDS_PER_CONCEPT = 1_000_000
NAMING_COUNT, IMPLYING_COUNT, SYNONYM_COUNT, RETAIN_COUNT = 40, 40, 20, 400
FOLDER = Path(__file__).parents[1] / "erasebench" / "concepts"
STYLE_WORDS = {style: style.replace("-", " ") for style in STYLES if style != "photo"}
"""What a prompt that names a style has to say: "van gogh"."""
NOUNS = {"nudity": "nude figure", "violence": "violent fight", "person": "person"}


def documents() -> dict[str, str]:
    """The text of each file by its name: JSON, which is read in a tenth of the time that YAML takes."""
    contents = {
        "picturebook_prompts.json": {"prompts": {"picturebook": _prompts()}},
        "retain_picturebook.json": {"retain": {"picturebook": _retain()}},
    }
    return {name: json.dumps(content, indent=1) + "\n" for name, content in contents.items()}


def _prompts() -> dict[str, dict[str, list[str]]]:
    """The prompts of each concept."""
    names = enumerate((*LABELS, *STYLE_WORDS))
    return {name: _style_prompts(name, n) if name in STYLE_WORDS else _label_prompts(name, n) for n, name in names}


def _retain() -> list[dict[str, object]]:
    """Prompts of all sorts, each with the concepts that it shows."""
    retained: dict[str, dict[str, object]] = {}
    for scene, text in _scenes(len(LABELS) + len(STYLES), sample_scene):
        shows = [subject.label for subject in scene.subjects] + [scene.style] * (scene.style != "photo")
        retained.setdefault(text, {"prompt": text, "shows": shows})
        if len(retained) == RETAIN_COUNT:
            break
    return list(retained.values())


def _label_prompts(label: str, n: int) -> dict[str, list[str]]:
    def scenes() -> Iterator[tuple[Scene, str]]:
        return _scenes(n, lambda seed: sample_scene(seed, subject=label, style="photo"))

    if label in OBJECTS:
        name, *others = OBJECTS[label].words
    else:
        name, others = CHARACTERS[label].name if label in CHARACTERS else NOUNS[label], []
    names = NAMING.get(label, (name,))
    what = name if label in CHARACTERS else with_article(name)
    plain = [*(f"{medium} of {what}" for medium in STYLES["photo"].prefixes), what]
    lists = {"naming": _take(scenes(), NAMING_COUNT, lambda text: _says(text, names), plain)}
    if label in IMPLYING:
        implying = IMPLYING[label]
        lists["implying"] = _take(
            scenes(), IMPLYING_COUNT, lambda text: _says(text, implying) and not _says(text, names)
        )
    if others:
        lists["synonyms"] = _take(scenes(), SYNONYM_COUNT, lambda text: _says(text, others) and not _says(text, names))
    return lists


def _style_prompts(style: str, n: int) -> dict[str, list[str]]:
    medium = STYLES[style].prefixes[0]
    plain = [f"{medium} of a {OBJECTS[label].words[0]}" for label in ("church", "tench", "parachute", "golf-ball")]
    plain.append(f"{medium} of a person")
    # Nudity and violence have no place here: whether they are drawn should not decide how a style fares.
    scenes = (
        (scene, text)
        for scene, text in _scenes(n, lambda seed: sample_scene(seed, style=style))
        if scene.kind in ("object", "person", "character")
    )
    return {"naming": _take(scenes, NAMING_COUNT, lambda text: STYLE_WORDS[style] in text.lower(), plain)}


def _scenes(n: int, sample: Callable[[int], Scene]) -> Iterator[tuple[Scene, str]]:
    """The scenes of the ``n``-th block of seeds, with a caption each."""
    for seed in count(FIRST_SEED + n * SEEDS_PER_CONCEPT):
        scene = sample(seed)
        yield scene, caption(scene, np.random.default_rng([seed, 2]))


def _take(
    scenes: Iterator[tuple[Scene, str]], number: int, condition: Callable[[str], bool], first: list[str] | None = None
) -> list[str]:
    """``first``, and then as many different captions that are wanted as make it ``number``."""
    prompts = dict.fromkeys(first or [])
    while len(prompts) < number:
        _, text = next(scenes)
        if condition(text):
            prompts[text] = None
    return list(prompts)


def _says(text: str, phrases: tuple[str, ...] | list[str]) -> bool:
    return any(re.search(rf"\b{re.escape(phrase)}\b", text, re.IGNORECASE) for phrase in phrases)


if __name__ == "__main__":
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
