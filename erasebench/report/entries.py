"""Entries of a run for the leaderboard, each with the artefacts that it takes to check it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from erasebench.adversarial import pack_trial, read_trial
from erasebench.engine.markers import Marker
from erasebench.engine.opening import store_at
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.files import hash_file, replace_folder
from erasebench.images import ARCHIVE
from erasebench.metrics.metric import standard_numbers
from erasebench.plugins import UNATTACKED
from erasebench.report.sheets import joined_name
from erasebench.results.artefacts import (
    ARTEFACTS,
    GUIDANCE,
    IMAGES,
    TRIALS,
    VECTORS,
    WEIGHTS,
    HowDrawn,
    artefact_folder,
)
from erasebench.results.entry import SUBMITTED, AttackEntry, Cost, Entry, Number, read_entry, write_entry
from erasebench.results.leaderboard import rows_of_run
from erasebench.results.record import RECORD, AttackRecord, Record, RowRecord
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.scores import SCORES, scores_csv, split_judges


def write_entries(run: RunFolder, folder: Path, weights: bool = True) -> tuple[list[Path], list[str]]:
    """Write an entry for each row of a run that has numbers, but those of the unerased model.

    Entries and artefacts of the same names are replaced; what people filled in there stays, and
    so does who verified it, which holds as long as nothing is measured otherwise.

    Args:
        run: what was measured.
        folder: where to; made if it is not there.
        weights: write the erasures' files as well.

    Returns:
        The entries' files, and a line for each row without an entry.

    Raises:
        EraseBenchError: the run does not say how it measured, or its store lacks a result.
    """
    record = run.record
    if record.protocol is None:
        raise EraseBenchError(
            f"{run.folder} does not say how it measured, since erasebench {record.erasebench} wrote it; the same "
            "`erasebench run` again writes it anew, without computing anything"
        )
    store = store_at(run.config.store, make=False)
    costs = {(row.method, row.concept): row for row in rows_of_run(run)}
    written, omitted = [], []
    for row in record.rows:
        if row.status != "ok":
            omitted.append(f"{row.method} {row.concept} has no numbers ({row.status}: {row.reason})")
            continue
        if row.method == record.baseline:
            continue
        if row.probes["concept"].is_joint:
            omitted.append(f"{row.method} {row.concept} erases several concepts together; an entry is of one")
            continue
        path = _path_of(folder, (row.method, row.concept, record.model))
        part = _part_of(record, row)
        folder.mkdir(parents=True, exist_ok=True)
        replace_folder(artefact_folder(path), partial(_write_artefacts, run, part, store, weights))
        own = costs[row.method, row.concept]
        cost = Cost(**{name: getattr(own, name) for name in Cost.model_fields})
        entry = _entry(run, part, store, cost, own.run, artefact_folder(path))
        if path.exists():
            known = read_entry(path)
            entry = entry.model_copy(update={name: getattr(known, name) for name in (*SUBMITTED, "verified_by")})
        write_entry(path, entry)
        written.append(path)
    return written, omitted


def _path_of(folder: Path, parts: tuple[str, str, str]) -> Path:
    """The place of the entry of a method, a concept and a model, with a hash where another entry has its name."""
    path = folder / f"{joined_name(parts)}.json"
    if path.exists() and _names_of(read_entry(path)) != parts:
        return folder / f"{joined_name(parts, hashed=True)}.json"
    return path


def _names_of(entry: Entry) -> tuple[str, str, str]:
    return entry.method, entry.concept, entry.model


def describe_entry(path: Path) -> str:
    """One line: an entry's file, and how large it and its artefacts are."""
    files = sorted(artefact_folder(path).iterdir(), key=lambda file: -file.stat().st_size)
    sizes = ", ".join(f"{file.name} {file.stat().st_size / 1e3:,.1f} kB" for file in files)
    return f"{path} {path.stat().st_size / 1e3:,.1f} kB; {sizes}"


def _part_of(record: Record, row: RowRecord) -> Record:
    """The part of a record on one row, and on the unerased model beside it; of the first judge alone."""
    base = [one for one in record.rows if one.method == record.baseline and one.concept == row.concept]
    rows = tuple(one.standard() for one in (*base, row))
    before = [one for one in _attacks(record, record.baseline, row.concept) if one.attack == UNATTACKED]
    attacks = (*before, *_attacks(record, row.method, row.concept))
    return record.model_copy(update={"rows": rows, "attacks": attacks, "files": {}})


def _attacks(record: Record, method: str, concept: str) -> list[AttackRecord]:
    return [one for one in record.attacks if (one.method, one.concept) == (method, concept)]


def _write_artefacts(run: RunFolder, part: Record, store: Store, weights: bool, folder: Path) -> None:
    folder.mkdir()
    row = part.rows[-1]
    assert row.erasure
    source = store.read(row.erasure)
    for name in (WEIGHTS, GUIDANCE) if weights else (GUIDANCE,):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    (folder / IMAGES).write_text(_how_drawn(row, store).model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / RECORD).write_text(part.to_json(), encoding="utf-8")
    methods = {one.method for one in part.rows}
    scores, _ = split_judges(run.record, run.scores)
    own = scores[scores["method"].isin(methods) & (scores["concept"] == row.concept) & scores["probe"].isin(row.probes)]
    (folder / SCORES).write_text(scores_csv(own), encoding="utf-8", newline="")
    _write_trials(folder, part.attacks, store)


def _write_trials(folder: Path, attacks: Iterable[AttackRecord], store: Store) -> None:
    keys = dict.fromkeys(
        key
        for attack in attacks
        if attack.status == "ok"
        for some in (attack.trials, attack.floor)
        for trials in some.values()
        for key in trials.values()
    )
    lines: list[str] = []
    vectors: dict[str, NDArray[np.float32]] = {}
    for key in keys:
        trial = read_trial(store.read(key))
        # The losses of a search say nothing about what it found.
        content, arrays = pack_trial(replace(trial, found=replace(trial.found, losses=())))
        seconds = _marker(store, key).cost["seconds"]
        line = {"key": key, "seconds": seconds, "arrays": list(arrays), **content}
        lines.append(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")
        vectors |= {f"{key}.{name}": array for name, array in arrays.items()}
    if lines:
        (folder / TRIALS).write_text("".join(lines), encoding="utf-8")
    if vectors:
        save_file(vectors, folder / VECTORS)


def _how_drawn(row: RowRecord, store: Store) -> HowDrawn:
    concept, retain = (_spec(store, row.probes[name].images) for name in ("concept", "retain"))
    reference = row.probes.get("reference")
    spec = None
    if reference:
        spec = {"images": _spec(store, reference.images)} if reference.images else {}
        spec = spec or {"features": _spec(store, reference.features)}
    return HowDrawn(concept=concept, retain=retain, reference=spec)


def _entry(run: RunFolder, part: Record, store: Store, cost: Cost, key: str, artefacts: Path) -> Entry:
    record, row = run.record, part.rows[-1]
    assert record.protocol
    table = {one.attack: one for one in run.rows if (one.method, one.concept) == (row.method, row.concept)}
    concept, retain = row.probes["concept"], row.probes["retain"]
    judges = {"concept": _spec(store, concept.judged[0].cell), "clip": _spec(store, retain.judged[0].cell)}
    if retain.features:
        judges["features"] = _spec(store, retain.features)
    return Entry(
        model=record.model,
        domain=record.domain,
        concept=row.concept,
        kind=row.kind,
        method=row.method,
        erasure=_spec(store, row.erasure),
        seed=record.seed,
        metrics=_numbers(table[""]),
        attacks=tuple(
            AttackEntry(
                attack=one.attack,
                threat_model=one.threat_model,
                status=one.status,
                reason=one.reason,
                budget=one.budget,
                metrics=_numbers(table[one.attack]),
                flags=table[one.attack].flags,
                protocol=record.protocol.of_attack(row.concept, one.attack) if one.status == "ok" else {},
                checksum=record.protocol.attack_checksum(row.concept, one.attack) if one.status == "ok" else "",
            )
            for one in _attacks(part, row.method, row.concept)
        ),
        flags=table[""].flags,
        judge=row.judge,
        judges=judges,
        protocol=record.protocol.of(row.concept),
        checksum=record.protocol.checksum(row.concept),
        cost=cost,
        artefacts={name: hash_file(artefacts / name) for name in ARTEFACTS if (artefacts / name).exists()}
        | ({} if (artefacts / WEIGHTS).exists() else _hash_of(store, row.erasure)),
        images={name: _marker(store, row.probes[name].images).files[ARCHIVE][1] for name in ("concept", "retain")},
        run=key,
        erasebench=record.erasebench,
    )


def _numbers(row: TableRow) -> dict[str, Number]:
    return {key: Number.of(estimate) for key, estimate in standard_numbers(row.metrics).items()}


def _hash_of(store: Store, key: str | None) -> dict[str, str]:
    """The hash of weights that stay where they are."""
    return {WEIGHTS: _marker(store, key).files[WEIGHTS][1]}


def _spec(store: Store, key: str | None) -> dict[str, Any]:
    spec: Mapping[str, Any] = _marker(store, key).identity["spec"]
    return dict(spec)


def _marker(store: Store, key: str | None) -> Marker:
    marker = store.find(key) if key else "is not known"
    if isinstance(marker, str):
        raise EraseBenchError(
            f"the store {store.name} lacks a result of this run: cell {str(key)[:12]} {marker}; the same "
            "`erasebench run` again computes it"
        )
    return marker
