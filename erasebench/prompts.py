"""Prompts: from the user's files, and in which order a concept's own are asked."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from erasebench.concepts import Prompt, View
from erasebench.errors import EraseBenchError


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


def repeat(prompts: Sequence[Prompt], images: int) -> list[Prompt]:
    """Each prompt with so many seeds, from its own on; the same id and seed again would be the same image."""
    drawn: dict[tuple[str, int], Prompt] = {}
    for prompt in prompts:
        for seed in range(prompt.seed, prompt.seed + images):
            drawn.setdefault((prompt.id, seed), replace(prompt, seed=seed))
    return list(drawn.values())


def read_prompt_set(view: View, files: Mapping[str, Path]) -> list[Prompt]:
    """The prompts of the user's copy of a public prompt set, with its seeds; 0 where the set has none.

    Raises:
        EraseBenchError: the file was not given or lacks a column: which, from where.
    """
    wanted = view.prompt_set
    assert wanted is not None
    if wanted.name not in files:
        raise EraseBenchError(
            f"the prompts '{wanted.name}' are needed and not part of erasebench: get the CSV file from {wanted.url} "
            f"and give it by --prompt-sets {wanted.name}=FILE.csv"
        )
    rows = _read_table(files[wanted.name])
    for column in (wanted.column, *wanted.where, *([wanted.seeds] if wanted.seeds else [])):
        _check_column(files[wanted.name], rows, column)
    taken = [row for row in rows if all(text in (row[column] or "") for column, text in wanted.where.items())]
    _check_prompts(files[wanted.name], [row[wanted.column] for row in taken])
    try:
        seeds = [int(row[wanted.seeds]) if wanted.seeds else 0 for row in taken]
    except (ValueError, TypeError) as error:
        raise EraseBenchError(f"column {wanted.seeds} of {files[wanted.name]} holds no seed: {error}") from None
    texts = [row[wanted.column] for row in taken]
    return [Prompt(text, text, seed, "set") for text, seed in zip(texts, seeds, strict=True)]


def read_prompts(path: Path) -> list[str]:
    """The column ``prompt`` of a CSV file.

    Raises:
        EraseBenchError: the file or the column is missing, or a prompt is empty.
    """
    rows = _read_table(path)
    _check_column(path, rows, "prompt")
    found = [row["prompt"] for row in rows]
    _check_prompts(path, found)
    return found


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The columns ``with`` and ``without`` of a CSV file: prompts with a concept, and the same without it.

    A prompt without the concept may be blank.

    Raises:
        EraseBenchError: the file or a column is missing, a prompt with the concept is empty, or a row is cut short.
    """
    rows = _read_table(path)
    for column in ("with", "without"):
        _check_column(path, rows, column)
    _check_prompts(path, [row["with"] for row in rows])
    short = next((number for number, row in enumerate(rows, 1) if row["without"] is None), None)
    if short is not None:
        raise EraseBenchError(f"{path}: pair {short} has no prompt without the concept")
    return [(row["with"], row["without"]) for row in rows]


def _check_column(path: Path, rows: Sequence[dict[str, str]], column: str) -> None:
    if column not in rows[0]:
        raise EraseBenchError(f"{path} has no column '{column}', but {', '.join(filter(None, rows[0]))}")


def _check_prompts(path: Path, prompts: Sequence[str | None]) -> None:
    without = next((number for number, prompt in enumerate(prompts, 1) if not (prompt or "").strip()), None)
    if without is not None:
        raise EraseBenchError(f"{path}: prompt {without} of those that are read is empty")


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
        EraseBenchError: the file cannot be read or is empty.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EraseBenchError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise EraseBenchError(f"{path} holds no rows")
    return rows
