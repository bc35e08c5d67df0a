"""Prompts: from the user's files, and in which order a concept's own are asked."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from io import StringIO
from itertools import zip_longest
from pathlib import Path

from erasebench.concepts import Concept, Prompt, View
from erasebench.errors import EraseBenchError
from erasebench.files import read_file
from erasebench.grammar import with_article
from erasebench.texts import MAX_PROMPT_LENGTH, is_blank

COMPOSITIONS = (
    "a photo of {0} next to {1}",
    "a photo of {1} and {0}",
    "a photo of {0} beside {1}",
    "a photo of {1} together with {0}",
)
"""The templates of a prompt for what is erased, ``{0}``, and for what is not, ``{1}``."""


def own_prompts(view: View, kinds: Sequence[str], seed: int) -> list[Prompt]:
    """A concept's own prompts by turns, so that a cut leaves as many of each kind; the longer lists' rest comes last.

    Args:
        view: what the domain knows of the concept.
        kinds: which of :data:`~erasebench.concepts.OWN_KINDS`.
        seed: of every prompt.
    """
    texts = {"naming": view.naming, "implying": view.implying, "synonym": view.synonyms}
    lists = [[Prompt(text, text, seed, kind) for text in texts[kind]] for kind in texts if kind in kinds]
    return [prompt for turn in zip_longest(*lists) for prompt in turn if prompt is not None]


def composed_prompts(concepts: Sequence[Concept], others: Sequence[Concept], seed: int) -> list[Prompt]:
    """Prompts for two objects at once, a concept that is erased and one that is not, by turns over these pairs.

    Args:
        concepts: that are erased.
        others: that should survive; those that are erased themselves are left out.
        seed: of every prompt.
    """
    survivors = [other for other in others if other.name not in {one.name for one in concepts}]
    pairs = [(one, other) for one in concepts for other in survivors if one.kind == other.kind == "object"]
    texts = {
        template.format(with_article(one.phrase), with_article(other.phrase)): (one.name, other.name)
        for template in COMPOSITIONS
        for one, other in pairs
    }
    return [Prompt(text, text, seed, "composition", shows) for text, shows in texts.items()]


def repeat(prompts: Sequence[Prompt], images: int) -> list[Prompt]:
    """Each prompt with so many seeds, from its own on; the same id and seed again would be the same image."""
    drawn: dict[tuple[str, int], Prompt] = {}
    for prompt in prompts:
        for seed in range(prompt.seed, prompt.seed + images):
            drawn.setdefault((prompt.id, seed), replace(prompt, seed=seed))
    return list(drawn.values())


def read_retain(path: Path, seed: int) -> list[Prompt]:
    """Unrelated prompts: the column ``prompt`` of a CSV file, or of COCO's captions in JSON one for each image.

    Raises:
        EraseBenchError: the file or the column is missing, or a prompt is empty.
    """
    if path.suffix.lower() == ".json":
        return caption_prompts(choose_captions(read_captions(path)), seed)
    rows = read_table(path)
    check_column(path, rows, "prompt")
    check_prompts(path, [row["prompt"] for row in rows])
    return [Prompt(row["prompt"], row["prompt"], seed, "retain") for row in rows]


def caption_prompts(captions: Sequence[str], seed: int) -> list[Prompt]:
    """Unrelated prompts; a caption that two images share has the next seed for the second, so that it is another image.

    Args:
        captions: one of each image.
        seed: of every caption that stands once.
    """
    counts: Counter[str] = Counter()
    prompts = []
    for text in captions:
        prompts.append(Prompt(text, text, seed + counts[text], "retain"))
        counts[text] += 1
    return prompts


def read_captions(path: Path) -> list[tuple[int, int, str]]:
    """The captions of a JSON file as COCO has them: the ids of image and caption, and the text.

    Raises:
        EraseBenchError: the file cannot be read, is no such file, or a caption is empty.
    """
    text = _read_text(path)
    try:
        captions = [
            (int(a["image_id"]), int(a["id"]), " ".join(str(a["caption"]).split()))
            for a in json.loads(text)["annotations"]
        ]
    except (ValueError, RecursionError) as error:
        raise EraseBenchError(f"{path} is not JSON, or is cut short: {error}") from None
    except (KeyError, TypeError) as error:
        raise EraseBenchError(
            f"{path} is no file of COCO's captions, a list of 'annotations' with image_id, id and caption each: {error}"
        ) from None
    if not captions:
        raise EraseBenchError(f"{path} holds no captions")
    check_prompts(path, [caption for _, _, caption in captions])
    return captions


def choose_captions(captions: Iterable[tuple[int, int, str]]) -> list[str]:
    """One caption of each image, drawn at random, in a random order of the images, which is always the same.

    Both are drawn by the SHA-256 of ids, so that the choice depends on nothing else: of each image the caption whose
    id has the lowest, and images by their own.  The first captions are thus a random sample of those that follow.

    Args:
        captions: ids of image and caption, and the text, in any order.
    """
    chosen: dict[int, str] = {}
    for image, _, text in sorted(captions, key=lambda caption: _draw(caption[1])):
        chosen.setdefault(image, text)
    return [chosen[image] for image in sorted(chosen, key=_draw)]


def _draw(number: int) -> bytes:
    return sha256(str(number).encode()).digest()


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The columns ``with`` and ``without`` of a CSV file: prompts with a concept, and the same without it.

    A prompt without the concept may be blank.

    Raises:
        EraseBenchError: the file or a column is missing, a prompt with the concept is empty, or a row is cut short.
    """
    rows = read_table(path)
    for column in ("with", "without"):
        check_column(path, rows, column)
    check_prompts(path, [row["with"] for row in rows])
    short = next((number for number, row in enumerate(rows, 1) if row["without"] is None), None)
    if short is not None:
        raise EraseBenchError(f"{path}: pair {short} has no prompt without the concept")
    return [(row["with"], row["without"]) for row in rows]


def check_column(path: Path, rows: Sequence[Mapping[str, str]], *columns: str) -> str:
    """The first of some columns that the rows of a file have.

    Raises:
        EraseBenchError: there is none of them.
    """
    name = next((column for column in columns if column in rows[0]), None)
    if name is None:
        names = " or ".join(f"'{column}'" for column in columns)
        raise EraseBenchError(f"{path} has no column {names}, but {', '.join(filter(None, rows[0]))}")
    return name


def check_prompts(path: Path, prompts: Sequence[str | None], empty: int = 0) -> None:
    """Raise :class:`EraseBenchError` if more than so many prompts of a file are empty, or one is far too long."""
    without = [number for number, prompt in enumerate(prompts, 1) if is_blank(prompt or "")]
    if len(without) > empty:
        raise EraseBenchError(f"{path}: prompt {without[empty]} of those that are read is empty")
    longest, number = max(((len(prompt or ""), number) for number, prompt in enumerate(prompts, 1)), default=(0, 0))
    if longest > MAX_PROMPT_LENGTH:
        raise EraseBenchError(f"{path}: prompt {number} has {longest:,} characters; {MAX_PROMPT_LENGTH:,} at most")


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; of a row that is cut short, what is missing is None.

    Raises:
        EraseBenchError: the file cannot be read, is no CSV or is empty, or its header names a column twice.
    """
    reader = csv.DictReader(StringIO(_read_text(path), newline=""), strict=True)
    rows: list[dict[str, str]] = []
    try:
        names = [name for name in reader.fieldnames or () if name]
        rows.extend(reader)
    except csv.Error as error:
        raise EraseBenchError(
            f"{path}, after row {len(rows)}: this is no CSV, or a quotation mark is left open: {error}"
        ) from None
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise EraseBenchError(f"{path} has two columns '{twice}'")
    if not rows:
        raise EraseBenchError(f"{path} holds no rows")
    longer = next((number for number, row in enumerate(rows, 1) if None in row), None)
    if longer is not None:
        raise EraseBenchError(
            f"{path}: row {longer} has more columns than the header; text with commas stands in quotation marks"
        )
    return rows


def _read_text(path: Path) -> str:
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EraseBenchError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start:,}") from None
    if "\0" in text:
        raise EraseBenchError(f"{path} holds NUL bytes: it is no text, or is damaged")
    return text
