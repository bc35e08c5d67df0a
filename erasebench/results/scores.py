"""The scores of a run as one tidy frame, ``scores.csv``: one row an image and judge label."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from erasebench.concepts import Concept, Prompt
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.judging import read_column
from erasebench.results.record import Record
from erasebench.results.table import frame_csv, restored_frame

if TYPE_CHECKING:
    from erasebench.plan import Plan

SCORES = "scores.csv"
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("method", "concept", "probe", "prompt_id", "text", "kind"), str),
    "seed": None,
    "image": int,
    **dict.fromkeys(("judge", "label"), str),
    **dict.fromkeys(("score", "threshold"), float),
}
"""The columns and their types: the row of the table; the image set; the prompt's id, text, kind and seed; the place of
the image among those of its cell; who judged it, for what; the score, and from which on the label is there (nan for
scores without a threshold).  A seed is any whole number."""


def collect_scores(plan: Plan, record: Record, store: Store) -> pd.DataFrame:
    """The scores of every row that could be measured, out of the store.

    Of the unrelated prompts, those that show a row's own concept are left out; those that show a neighbour of it are of
    the kind "neighbour" there.
    """
    return _typed(pd.DataFrame(list(_lines(plan, record, store)), columns=list(COLUMNS)))


def _lines(plan: Plan, record: Record, store: Store) -> Iterator[tuple[object, ...]]:
    for row, row_record in zip(plan.rows, record.rows, strict=True):
        if row_record.status != "ok":
            continue
        for name, probe in row.probes.items():
            prompts = unrelated_prompts(row.concept, probe.prompts) if name in ("retain", "others") else probe.prompts
            for judged in row_record.probes[name].judged:
                scores = read_column(store.read(judged.cell), judged.label)
                places = {key: place for place, key in enumerate(scores)}
                for prompt in prompts:
                    if judged.concept and judged.concept not in prompt.shows:
                        continue
                    key = (prompt.id, prompt.seed)
                    yield (
                        *(row_record.method, row_record.concept, name),
                        *(prompt.id, prompt.text, prompt.kind, prompt.seed),
                        *(places[key], judged.judge, judged.label, scores[key], judged.threshold),
                    )


def split_judges(record: Record, scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores that numbers are of, those of each image's first judge, and those of further judges.

    Whatever counts, ranks, compares or flags takes the first of the two.
    """
    further = {
        (row.method, row.concept, name, judged.judge, judged.label)
        for row in record.rows
        for name, probe in row.probes.items()
        for judged in probe.further
    }
    if not further:
        return scores, scores[:0]
    keys = zip(*(scores[name] for name in ("method", "concept", "probe", "judge", "label")), strict=True)
    is_further = np.fromiter((key in further for key in keys), dtype=bool, count=len(scores))
    return scores[~is_further], scores[is_further]


def unrelated_prompts(concept: Concept, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that do not show a concept; of the kind "neighbour" where they show one of its neighbours."""
    own = {part.name for part in concept.parts}
    related = set(concept.neighbours)
    return [
        replace(prompt, kind="neighbour") if related & set(prompt.shows) else prompt
        for prompt in prompts
        if not own & set(prompt.shows)
    ]


def scores_csv(scores: pd.DataFrame) -> str:
    """The text of ``scores.csv``: digits enough for float32."""
    return frame_csv(scores, "%.9g")


def read_scores(folder: Path) -> pd.DataFrame:
    """The scores in a run folder.

    Raises:
        EraseBenchError: there are none, or the file is damaged.
    """
    path = folder / SCORES
    try:
        scores = pd.read_csv(
            io.StringIO(path.read_bytes().decode(), newline=""),
            keep_default_na=False,  # a prompt may well be "null"
            na_values={"threshold": [""]},
            dtype={name: kind for name, kind in COLUMNS.items() if kind and name != "score"},
            converters={"seed": int, "score": float},  # Python's own, exact to the last bit
        )
        return restored_frame(_typed(scores[list(COLUMNS)]))
    except OSError as error:
        raise EraseBenchError(
            f"{folder} is no folder of a finished run: cannot read {path}: {error.strerror}"
        ) from error
    except (ValueError, KeyError) as error:
        raise EraseBenchError(f"{path} is no table of scores: {' '.join(str(error).split())}") from None


def _typed(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.astype({name: kind for name, kind in COLUMNS.items() if kind})
