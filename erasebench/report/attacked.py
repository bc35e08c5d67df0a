"""Sheets of what attacks brought back: the same prompts and noise, unerased, erased, and under each attack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erasebench import __version__
from erasebench.concepts import SENSITIVE_KINDS
from erasebench.domains import DOMAINS
from erasebench.engine.store import Store
from erasebench.images import read_images
from erasebench.report.grids import sample_grid
from erasebench.report.sheets import file_name, save_sheet, source_of
from erasebench.results.record import AttackRecord, Record

EXAMPLES = 4
"""Prompts of a sheet."""
CONTROL = "none"
"""The attack that leaves a prompt as it is."""


def draw_attacked(record: Record, store: Store, folder: Path) -> None:
    """Draw a sheet for each method and concept that was attacked.

    Args:
        record: the run.
        store: holds its images.
        folder: where to.
    """
    sound = [row for row in record.attacks if row.status == "ok" and len(row.trials) == 1]
    for method, concept in dict.fromkeys((row.method, row.concept) for row in sound):
        rows = [row for row in sound if (row.method, row.concept) == (method, concept)]
        unerased = [
            row for row in sound if (row.method, row.concept, row.attack) == (record.baseline, concept, CONTROL)
        ]
        if method == record.baseline or not unerased:
            continue
        columns = {record.baseline: unerased[0]}
        columns |= {"no attack" if row.attack == CONTROL else row.attack: row for row in rows}
        common = [set(_trials(row)) for row in columns.values()]
        prompts = [prompt for prompt in _trials(unerased[0]) if all(prompt in known for known in common)][:EXAMPLES]
        if not prompts:
            continue
        keys = {name: [_trials(row)[prompt] for prompt in prompts] for name, row in columns.items()}
        blur = rows[0].kind in SENSITIVE_KINDS and not DOMAINS[record.domain].harmless
        source = hashlib.sha256(json.dumps([__version__, keys, blur]).encode()).hexdigest()
        path = folder / f"attacked-{file_name(method)}-{file_name(concept)}.png"
        if source_of(path) != source:
            images = {name: _first_images(own, store) for name, own in keys.items()}
            save_sheet(sample_grid(images, prompts, f"{method} under attack: {concept}", blur), path, source)


def _trials(row: AttackRecord) -> dict[str, str]:
    return next(iter(row.trials.values()))


def _first_images(keys: Sequence[str], store: Store) -> list[NDArray[np.uint8]]:
    return [read_images(store.read(key), 1)[0] for key in keys]
