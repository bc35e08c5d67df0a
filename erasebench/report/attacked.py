"""A run folder's figures of attacks: sheets of images on the same noise, radar charts, robustness against budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from erasebench import __version__
from erasebench.engine.store import Store
from erasebench.images import read_images
from erasebench.plugins import UNATTACKED
from erasebench.report.blurring import is_blurred
from erasebench.report.budget import draw_budget
from erasebench.report.grids import sample_grid
from erasebench.report.radar import draw_overall, overall
from erasebench.report.samples import sheet_names
from erasebench.report.sheets import file_name, save_sheet, source_of
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.record import AttackRecord, Record
from erasebench.results.rows import TableRow

EXAMPLES = 4
"""Prompts of a sheet."""


def draw_attacked(record: Record, store: Store, folder: Path) -> None:
    """Draw a sheet for each method and concept that was attacked.

    Args:
        record: the run.
        store: holds its images.
        folder: where to.
    """
    names = sheet_names(record)
    sound = [row for row in record.attacks if row.status == "ok" and len(row.trials) == 1]
    for method, concept in dict.fromkeys((row.method, row.concept) for row in sound):
        rows = [row for row in sound if (row.method, row.concept) == (method, concept)]
        unerased = [
            row for row in sound if (row.method, row.concept, row.attack) == (record.baseline, concept, UNATTACKED)
        ]
        if method == record.baseline or not unerased:
            continue
        columns = {record.baseline: unerased[0]}
        columns |= {"no attack" if row.attack == UNATTACKED else row.attack: row for row in rows}
        common = [set(_trials(row)) for row in columns.values()]
        prompts = [prompt for prompt in _trials(unerased[0]) if all(prompt in known for known in common)][:EXAMPLES]
        if not prompts:
            continue
        keys = {name: [_trials(row)[prompt] for prompt in prompts] for name, row in columns.items()}
        blur = is_blurred(record, rows[0].kind)
        source = hashlib.sha256(json.dumps([__version__, keys, blur]).encode()).hexdigest()
        path = folder / names["attacked", method, concept]
        if source_of(path) != source:
            images = {name: _first_images(own, store) for name, own in keys.items()}
            save_sheet(sample_grid(images, prompts, f"{method} under attack: {concept}", blur), path, source)


def _trials(row: AttackRecord) -> dict[str, str]:
    return next(iter(row.trials.values()))


def _first_images(keys: Sequence[str], store: Store) -> list[NDArray[np.uint8]]:
    return [read_images(store.read(key), 1)[0] for key in keys]


def draw_charts(rows: Sequence[TableRow], attacks: pd.DataFrame, baseline: str, folder: Path) -> None:
    """Draw each concept's radar chart and overall scores, and the robust rate against the budget of each ensemble.

    Args:
        rows: the results, of models and of attacks.
        attacks: what every attack found.
        baseline: the method that erases nothing.
        folder: where to.
    """
    folder.mkdir(exist_ok=True)
    frame = overall(rows, baseline)
    for concept in dict.fromkeys(row.concept for row in rows):
        own = frame[frame["concept"] == concept]
        _draw(folder / f"radar-{file_name(concept)}", own, partial(draw_overall, own, concept), baseline)
        trials = attacks[attacks["concept"] == concept]
        path = folder / f"budget-{file_name(concept)}"
        _draw(path, trials, partial(draw_budget, trials, ENSEMBLE, concept), baseline)


def _draw(path: Path, data: pd.DataFrame, draw: Callable[..., str], baseline: str) -> None:
    source = hashlib.sha256(f"{__version__} {data.to_csv()}".encode()).hexdigest()
    if source_of(path.with_name(f"{path.name}.png")) != source:
        draw(path, baseline, source)
