"""Which prompts of another run are tried, and how the matrix of what came of it is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.adversarial import AdversarialPrompt, Found, Trial
from erasebench.errors import EraseBenchError
from erasebench.results.attacks import ATTACKS, attack_rows, attacks_csv, attacks_frame
from erasebench.results.record import RECORD, AttackRecord, Record
from erasebench.results.table import frame_csv
from erasebench.results.transfers import replays, transfer_matrix
from erasebench.settings import resolve_attack


def trial(id: str, score: float, confirmed: bool = False, text: str = "found", note: str = "") -> Trial:
    again = (1.0, 1.0, 0.0) if confirmed else (0.0, 0.0, 1.0)
    found = Found(AdversarialPrompt(text), note=note)
    return Trial(id, id, 0, "naming", found, score, again if score >= 0.5 else (), 0.5, 1, 1)


METHODS = ("uce", "esd-x[steps=2;learning_rate=0.1]")
ATTACKED = ("none", "seed-search", "rab", "standard", "cce")
TEXTS = {"none": "a", "seed-search": "a", "cce": ""}
"""What attacks find for the prompt "a", where it is not said: its own text, or no text."""


def run_folder(folder: Path, text: str = "found", tokenizer: str = "t") -> Path:
    rows = [
        row
        for method in METHODS
        for attack in ATTACKED
        for row in attack_rows(method, "church", attack, [(trial("a", 0.9, text=TEXTS.get(attack, text)), 1.0, "")])
    ]
    attacks = tuple(
        AttackRecord(
            method=method,
            concept="church",
            kind="object",
            attack=attack,
            status="ok",
            trials={"none": {}, "rab": {}} if attack == "standard" else {attack: {}},
        )
        for method in METHODS
        for attack in ATTACKED
    )
    record = Record(
        erasebench="0",
        model="m",
        domain="photo",
        baseline="sd",
        metrics={},
        rows=(),
        attacks=attacks,
        tokenizer=tokenizer,
    )
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    (folder / ATTACKS).write_text(attacks_csv(attacks_frame(rows)), encoding="utf-8")
    return folder


def test_texts_of_single_attacks_are_replayed(tmp_path: Path) -> None:
    labels = replays(run_folder(tmp_path), "t")
    assert labels == [f"replay[run={tmp_path};method={method};by=rab]" for method in METHODS], "no control, no ensemble"
    for label, method in zip(labels, METHODS, strict=True):
        made = resolve_attack(label, {}).instance
        assert (made.run, made.method, made.by) == (str(tmp_path), method, "rab")  # type: ignore[attr-defined]


def test_prompts_for_another_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="found on 'm', whose tokenizer is another"):
        replays(run_folder(tmp_path), "other")


def test_a_run_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="no texts that attacks found"):
        replays(run_folder(tmp_path, ""), "t")
    with pytest.raises(EraseBenchError, match="no folder of a finished run"):
        replays(tmp_path / "nowhere", "t")


def test_the_matrix_counts_what_was_found_on_one_and_tried_on_another() -> None:
    label = "replay[run=r;method=uce;by=rab]"
    frame = attacks_frame(
        [
            *attack_rows("mace", "church", label, [(trial("a", 0.9, True), 1, ""), (trial("b", 0.9), 1, "")]),
            *attack_rows("mace", "church", label, [(trial("c", 0.9, True), 1, "")], floor=True),
            *attack_rows("mace", "church", label, [(trial("d", 0.1, note="nothing was found"), 1, "")]),
            *attack_rows("uce", "church", label, [(trial("a", 0.1), 1, "")]),
            *attack_rows("uce", "church", "rab", [(trial("a", 0.9, True), 1, "")]),
        ]
    )
    matrix = transfer_matrix(frame)
    counted = matrix.drop(columns=[name for name in matrix if name.endswith(("_low", "_high"))])
    assert [tuple(row) for row in counted.itertuples(index=False)] == [
        ("church", "rab", "uce", "mace", 2, 1.0, 0.5),
        ("church", "rab", "uce", "uce", 1, 0.0, 0.0),
    ]
    assert frame_csv(matrix).splitlines()[1] == "church,rab,uce,mace,2,1,0.34238,1,0.5,0.0945312,0.905469"
    assert transfer_matrix(frame[frame["attack"] == "rab"]).empty
