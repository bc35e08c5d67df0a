"""The artefacts of an entry of the leaderboard: what it takes to check the entry.

They lie in a folder beside it that has the entry's name without ``.json``:

================================ =======================================================================================
``erasure.safetensors``          the change of the weights, and ``guidance.json`` the rule of guidance, if it is one
``images.json``                  how images were drawn: prompts, their ids, seeds and the sampler; the reference images
``plan.json``                    the row's part of the run's record, and the unerased model's
``scores.csv``                   the judges' scores of their images
``trials.jsonl``                 what attacks found for each prompt, and the scores of that, one trial a line
``vectors.safetensors``          embeddings among what they found, by the trial's key
================================ =======================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from erasebench.adversarial import Trial, unpack_trial
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.files import hash_file
from erasebench.results.attacks import frame_trials
from erasebench.results.entry import Entry
from erasebench.results.measure import measure
from erasebench.results.record import RECORD, ProbeRecord, Record, read_record
from erasebench.results.rows import TableRow
from erasebench.results.scores import SCORES, read_scores

WEIGHTS, GUIDANCE, IMAGES, TRIALS, VECTORS = (
    "erasure.safetensors",
    "guidance.json",
    "images.json",
    "trials.jsonl",
    "vectors.safetensors",
)
ARTEFACTS = (WEIGHTS, GUIDANCE, IMAGES, RECORD, SCORES, TRIALS, VECTORS)
"""Every file that an entry may have."""


def artefact_folder(path: Path) -> Path:
    """The folder of the artefacts of an entry's file."""
    return path.with_name(path.name.removesuffix(".json"))


class HowDrawn(BaseModel):
    """The drawing of an entry's images, ``images.json``.

    Attributes:
        concept: the spec of the images of the concept: ids, prompts and seeds, one an image, and the sampler;
            ``retain`` that of the unrelated prompts.
        reference: what the reference images' features are of: ``images``, the spec of images of the domain's world; or
            ``features``, the spec of the judge on a folder of the user's; None where there are none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concept: dict[str, Any]
    retain: dict[str, Any]
    reference: dict[str, dict[str, Any]] | None


@dataclass(frozen=True)
class Artefacts:
    """The artefacts that an entry is checked against.

    Attributes:
        folder: where they are.
        record: the row's part of its run's record.
        drawn: how images were drawn.
        scores: of the images.
        trials: of attacks, each with its seconds, by key.
    """

    folder: Path
    record: Record
    drawn: HowDrawn
    scores: pd.DataFrame
    trials: Mapping[str, tuple[Trial, float]]


def changed_artefacts(entry: Entry, folder: Path, without: frozenset[str] = frozenset()) -> list[str]:
    """The files of an entry that are not as they were submitted, one line each.

    Args:
        entry: whose.
        folder: where they are.
        without: files that need not be there.

    Raises:
        EraseBenchError: a file cannot be read.
    """
    wrong = [
        f"{name} is in {folder}, but the entry does not vouch for it"
        for name in ARTEFACTS
        if name not in entry.artefacts and (folder / name).exists()
    ]
    for name, expected in entry.artefacts.items():
        path = folder / name
        if Path(name).name != name:
            raise EraseBenchError(f"the artefact '{name}' is no file of the folder beside the entry")
        if name in without and not path.exists():
            continue
        try:
            digest = hash_file(path)
        except OSError as error:
            hint = "; --erase makes the erasure anew" if name in (WEIGHTS, GUIDANCE) else ""
            raise EraseBenchError(f"cannot read the artefact {path}: {error.strerror}{hint}") from error
        if digest != expected:
            wrong.append(f"{name} is not the file that was submitted: its SHA-256 is {digest}, not {expected}")
    return wrong


def read_artefacts(folder: Path) -> Artefacts:
    """Read the artefacts of an entry.

    Raises:
        EraseBenchError: one cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        drawn = HowDrawn.model_validate_json((folder / IMAGES).read_bytes())
        vectors: dict[str, Any] = load_file(folder / VECTORS) if (folder / VECTORS).exists() else {}
        trials = {}
        if (folder / TRIALS).exists():
            for line in (folder / TRIALS).read_text(encoding="utf-8").splitlines():
                content = json.loads(line)
                key, seconds = content.pop("key"), float(content.pop("seconds"))
                names = {name: vectors[f"{key}.{name}"] for name in content.pop("arrays")}
                trials[key] = unpack_trial(content, names), seconds
    except OSError as error:
        raise EraseBenchError(f"cannot read the artefact {error.filename}: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise EraseBenchError(f"an artefact in {folder} is damaged: {' '.join(str(error).split())}") from None
    return Artefacts(folder, read_record(folder), drawn, read_scores(folder), trials)


def recompute(artefacts: Artefacts) -> dict[str, TableRow]:
    """The entry's table out of its scores and trials, by attack: all that needs neither images nor features.

    Raises:
        EraseBenchError: the record names a trial that is not there.
    """
    record = artefacts.record

    def read(key: str) -> tuple[Trial, float]:
        if key not in artefacts.trials:
            raise EraseBenchError(f"{artefacts.folder / TRIALS} has no trial {key[:12]}, which {RECORD} names")
        return artefacts.trials[key]

    def judged(probe: ProbeRecord) -> ProbeRecord:
        return probe.model_copy(update={"features": None, "images": None})

    bare = [
        row.model_copy(
            update={"probes": {name: judged(row.probes[name]) for name in row.probes if name != "reference"}}
        )
        for row in record.rows
    ]
    attacks = frame_trials(record, artefacts.scores, read)
    nothing = Store(artefacts.folder / "store", make=False)
    rows = measure(record.model_copy(update={"rows": tuple(bare)}), artefacts.scores, nothing, attacks)
    return rows_by_attack(rows, record)


def rows_by_attack(rows: list[TableRow], record: Record) -> dict[str, TableRow]:
    """Of a table of an entry's record, the entry's own rows by attack, "" for the one without; the last row is it."""
    method = record.rows[-1].method
    return {row.attack: row for row in rows if row.method == method}
