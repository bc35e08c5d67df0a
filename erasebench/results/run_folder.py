"""A run folder, read: what reports, exports and comparisons start from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from erasebench.config import RunConfig, make_config, read_layer
from erasebench.errors import EraseBenchError
from erasebench.results.attacks import attacks_frame, read_attacks
from erasebench.results.costs import COLUMNS as COST_COLUMNS
from erasebench.results.costs import COSTS
from erasebench.results.ranking import RANKS, ranks_frame, read_ranks
from erasebench.results.record import RECORD, Record, read_record
from erasebench.results.rows import TableRow
from erasebench.results.scores import read_scores
from erasebench.results.seeds import SEEDS, read_seeds, seeds_frame
from erasebench.results.table import TABLE, read_csv, read_frame

CONFIG = "run.yaml"
ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class RunFolder:
    """The results that a run left; images and others are in the store that its configuration names.

    Attributes:
        folder: where it is.
        config: the run, with everything decided.
        record: its rows, how they were measured, and the cells that hold what they were made of.
        rows: the table.
        scores: of every image; columns :data:`~erasebench.results.scores.COLUMNS`.
        attacks: of every attacked prompt; columns :data:`~erasebench.results.attacks.COLUMNS`; none without attacks.
        ranks: of the methods; columns :data:`~erasebench.results.ranking.COLUMNS`; none where an older version ran.
        seeds: the spread between erasures of one method; columns :data:`~erasebench.results.seeds.COLUMNS`; likewise.
        costs: of every cell but those of attacks.
        environment: versions, device, judges.
    """

    folder: Path
    config: RunConfig
    record: Record
    rows: tuple[TableRow, ...]
    scores: pd.DataFrame
    attacks: pd.DataFrame
    ranks: pd.DataFrame
    seeds: pd.DataFrame
    costs: pd.DataFrame
    environment: dict[str, Any]


def read_run(folder: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        EraseBenchError: it is none, the run was cut short, another version wrote it, or a file is damaged, was edited
            or is of another run.
    """
    record = read_record(folder)
    for name, expected in record.files.items():
        _check(folder, name, expected)
    try:
        rows = tuple(read_csv((folder / TABLE).read_text(encoding="utf-8")))
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except OSError as error:
        raise EraseBenchError(
            f"{folder} is no folder of a finished run: cannot read {error.filename}: {error.strerror}"
        ) from error
    except (ValueError, RecursionError, EraseBenchError) as error:
        raise EraseBenchError(f"a table in {folder} is damaged: {error}") from None
    costs = read_frame(folder / COSTS, COST_COLUMNS)
    attacks = read_attacks(folder) if record.attacks else attacks_frame()
    config = make_config(read_layer(folder / CONFIG))
    ranks = read_ranks(folder) if RANKS in record.files else ranks_frame()
    seeds = read_seeds(folder) if SEEDS in record.files else seeds_frame()
    return RunFolder(folder, config, record, rows, read_scores(folder), attacks, ranks, seeds, costs, environment)


def _check(folder: Path, name: str, expected: str) -> None:
    """Raise unless a file is the one that the record vouches for."""
    try:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    except OSError as error:
        raise EraseBenchError(f"cannot read {folder / name}: {error.strerror}; run it again") from error
    if digest != expected:
        raise EraseBenchError(
            f"{folder / name} is not the file that {RECORD} vouches for: it was edited or damaged, or a later run was "
            "cut short; the same `erasebench run` again writes it anew"
        )
