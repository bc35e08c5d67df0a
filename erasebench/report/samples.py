"""A run folder's figures of its rows without attacks: sheets of images side by side, and curves of the training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from erasebench import __version__
from erasebench.engine.store import Store
from erasebench.images import read_images, read_index
from erasebench.report.blurring import is_blurred
from erasebench.report.curves import draw_curves
from erasebench.report.grids import sample_grid
from erasebench.report.sheets import file_names, save_sheet, source_of
from erasebench.results.record import Record, RowRecord
from erasebench.traces import TRACE, read_trace

EXAMPLES = 4
"""Prompts of each sort in a sheet."""


@dataclass(frozen=True)
class _Examples:
    """The places of a sheet's images.

    Attributes:
        own: places among the images of the concept; ``others`` among those of unrelated prompts.
        prompts: the texts of all.
    """

    own: tuple[int, ...]
    others: tuple[int, ...]
    prompts: tuple[str, ...]


def sheet_names(record: Record) -> dict[tuple[str, ...], str]:
    """The names of a run's images: of a concept, of a method and a concept, and of ``attacked`` before these two."""
    rows = [(row.method, row.concept) for row in record.rows]
    pairs = list(dict.fromkeys([*rows, *((row.method, row.concept) for row in record.attacks)]))
    concepts = [(concept,) for concept in dict.fromkeys(concept for _, concept in pairs)]
    names = file_names([*concepts, *pairs, *(("attacked", *pair) for pair in pairs)])
    return {parts: f"{name}.png" for parts, name in names.items()}


def draw_grids(record: Record, scores: pd.DataFrame, store: Store, folder: Path) -> None:
    """Draw for each concept a sheet of every method beside the unerased model, and one of all methods side by side.

    Args:
        record: the run.
        scores: of its images.
        store: holds them.
        folder: where to.
    """
    folder.mkdir(exist_ok=True)
    names = sheet_names(record)
    for concept in dict.fromkeys(row.concept for row in record.rows):
        rows = {row.method: row for row in record.rows if row.concept == concept and _was_drawn(row, store)}
        if record.baseline not in rows:
            continue
        sheets: dict[tuple[str, ...], str] = {(record.baseline, method): names[method, concept] for method in rows}
        if len(rows) > 2:
            sheets[tuple(rows)] = names[(concept,)]
        examples = _choose(rows[record.baseline], scores, store)
        blur = is_blurred(record, rows[record.baseline].kind)
        sources = {methods: _source([rows[one] for one in methods], examples, blur) for methods in sheets}
        missing = [methods for methods, name in sheets.items() if source_of(folder / name) != sources[methods]]
        drawn = {one: _images(rows[one], examples, store) for one in {one for methods in missing for one in methods}}
        for methods in missing:
            title = f"{methods[-1]}: {concept}" if len(methods) == 2 else concept
            sheet = sample_grid({method: drawn[method] for method in methods}, examples.prompts, title, blur)
            save_sheet(sheet, folder / sheets[methods], sources[methods])


def draw_training(record: Record, store: Store, folder: Path) -> None:
    """Draw the training of each row's erasure, where it has a trace.

    Args:
        record: the run.
        store: holds its erasures.
        folder: where to.
    """
    names = sheet_names(record)
    for row in record.rows:
        if row.erasure is None or store.marker(row.erasure) is None:
            continue
        path, trace = folder / names[row.method, row.concept], read_trace(store.read(row.erasure) / TRACE)
        if trace and source_of(path) != row.erasure:
            folder.mkdir(exist_ok=True)
            draw_curves(trace, path, f"{row.method}: {row.concept}", row.erasure)


def _was_drawn(row: RowRecord, store: Store) -> bool:
    keys = [row.probes[name].images if name in row.probes else None for name in ("concept", "retain")]
    return all(key and store.marker(key) is not None for key in keys)


def _choose(base: RowRecord, scores: pd.DataFrame, store: Store) -> _Examples:
    """One image a prompt, from the start of the lists: plain prompts come first."""
    prompts = read_index(store.read(_key(base, "concept")))[1]
    own = scores[
        (scores["method"] == base.method) & (scores["concept"] == base.concept) & (scores["probe"] == "retain")
    ]
    first = own.drop_duplicates("image")[:EXAMPLES]
    texts = list(dict.fromkeys(prompts))[:EXAMPLES]
    return _Examples(tuple(map(prompts.index, texts)), tuple(first["image"]), (*texts, *first["text"]))


def _images(row: RowRecord, examples: _Examples, store: Store) -> list[NDArray[np.uint8]]:
    images = []
    for probe, places in (("concept", examples.own), ("retain", examples.others)):
        if places:
            drawn = read_images(store.read(_key(row, probe)), 1 + max(places))
            images += [drawn[place] for place in places]
    return images


def _source(rows: Sequence[RowRecord], examples: _Examples, blur: bool) -> str:
    """SHA-256 of all that a sheet of rows of one concept shows."""
    keys = [_key(row, probe) for row in rows for probe in ("concept", "retain")]
    shown = [__version__, rows[0].concept, blur, [row.method for row in rows], keys, list(map(int, examples.others))]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _key(row: RowRecord, probe: str) -> str:
    key = row.probes[probe].images
    assert key
    return key
