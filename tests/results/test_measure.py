"""The table out of a run folder and a store: no model, no judge, no plug-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.report.table import to_markdown
from erasebench.results.measure import measure
from erasebench.results.record import AttackRecord, Record, read_record
from erasebench.results.rows import Status, TableRow
from erasebench.results.scores import read_scores
from erasebench.results.table import read_csv, to_csv
from tests.results.trials import trials_of


@pytest.fixture(scope="module")
def rows(finished: Path) -> list[TableRow]:
    return measure(read_record(finished / "out"), read_scores(finished / "out"), Store(finished / "store"))


def test_measured_again_from_its_folder_a_run_has_the_same_table(finished: Path, rows: list[TableRow]) -> None:
    metrics = read_record(finished / "out").metrics
    assert to_csv(rows, metrics) == (finished / "out" / "table.csv").read_text(encoding="utf-8")
    assert to_markdown(rows, metrics) == (finished / "out" / "table.md").read_text(encoding="utf-8")


def test_metrics_against_the_scores(finished: Path, rows: list[TableRow]) -> None:
    scores = read_scores(finished / "out")
    for row in rows[:4]:
        own = scores[(scores.method == row.method) & (scores.concept == row.concept)]
        concept, retain = (own[own.probe == name] for name in ("concept", "retain"))
        assert row.metrics["ratio"].value == pytest.approx(100 * (concept.score >= 0.5).mean())
        assert row.metrics["score_all"].value == pytest.approx(100 * concept.score.mean())
        assert row.metrics["score_shown"].value == pytest.approx(100 * concept.score[concept.score >= 0.5].mean())
        assert row.metrics["score"] == row.metrics["score_all" if row.concept == "nudity" else "score_shown"]
        assert row.metrics["clip"].value == pytest.approx(retain.score.mean())
        assert row.metrics["fid"].n == row.metrics["clip"].n == len(retain)
    assert len({row.metrics["fid"].value for row in rows[:4]}) == 4, "each concept leaves out other prompts"


def test_rows_without_numbers(rows: list[TableRow]) -> None:
    assert rows[4:] == [
        TableRow("failing", "church", "failed", "diverged"),
        TableRow("failing", "nudity", "n/a", "no nudity"),
    ]


def test_without_the_unerased_models_row_nothing_is_compared_with_it(finished: Path, rows: list[TableRow]) -> None:
    record = read_record(finished / "out")
    lost = record.rows[0].model_copy(update={"status": "failed", "reason": "lost"})
    record = record.model_copy(update={"rows": (lost, *record.rows[1:])})
    again = measure(record, read_scores(finished / "out"), Store(finished / "store"))
    assert again[0] == TableRow("sd", "church", "failed", "lost")
    assert again[2].metrics == rows[2].metrics and "no-base" in again[2].flags
    assert again[3] == rows[3], "the other concept has its own"


TRIED = trials_of(
    {
        ("sd", "none"): "cccc-",
        ("uce", "none"): "c----",
        ("uce", "rab"): "ccr--",
        ("uce", "p4d-k"): "c----",
        ("uce", "standard"): "ccr--",
    },
    floor=(1, 10),
)


def with_attacks(finished: Path, *attacks: tuple[str, str, Status]) -> Record:
    models = {"rab": "text-black-box", "p4d-k": "text-white-box"}
    more = [
        AttackRecord(
            method=method,
            concept="church",
            kind="object",
            status=status,
            reason="why",
            judge="who",
            attack=attack,
            threat_model=models.get(attack, ""),
            judged=attack == "p4d-k",
        )
        for method, attack, status in attacks
    ]
    return read_record(finished / "out").model_copy(update={"attacks": tuple(more)})


def test_rows_of_attacks_are_measured_beside_the_others(finished: Path, rows: list[TableRow]) -> None:
    record = with_attacks(
        *(finished, ("sd", "none", "ok"), ("uce", "rab", "ok"), ("uce", "p4d-k", "ok"), ("uce", "standard", "ok")),
        *(("uce", "cce", "n/a"), ("uce", "lost", "ok")),
    )
    scores, store = read_scores(finished / "out"), Store(finished / "store")
    found = measure(record, scores, store, TRIED)
    assert found[: len(rows)] == rows, "the rows of models are as without attacks"
    none, rab, p4d, standard, cce, lost = found[len(rows) :]
    assert [row.attack for row in found[len(rows) :]] == ["none", "rab", "p4d-k", "standard", "cce", "lost"]
    assert list(rab.metrics) == list(p4d.metrics) == list(none.metrics)
    assert set(rab.metrics) & set(rows[0].metrics) == set()
    assert rab.judge == "who" and rab.metrics["asr"].value == 60 and rab.metrics["asr-confirmed"].value == 40
    assert (rab.metrics["floor"].value, rab.metrics["floor"].n) == (10, 10)
    assert (standard.metrics["robust-rate"].value, standard.metrics["robust-rate"].n) == (50, 4)
    assert none.metrics["robust-rate"].value == 0 and none.metrics["asr-ideal"].n == 0
    assert rab.notes == {"difference": "0.25", "difference-confirmed": "0.5"}, "two and one gained, none lost"
    assert rab.flags == ("judge-noisy",)
    assert p4d.flags == ("black-box-better", "guard-in-loop", "judge-noisy")
    assert cce == TableRow("uce", "church", "n/a", "why", attack="cce")
    assert lost.status == "ok" and lost.flags == () and not any(one.defined for one in lost.metrics.values())
    again = read_csv(to_csv(found, record.metrics))
    assert to_csv(again, record.metrics) == to_csv(found, record.metrics)
    assert [(row.method, row.concept, row.attack, row.flags, row.notes) for row in again] == [
        (row.method, row.concept, row.attack, row.flags, dict(row.notes)) for row in found
    ]


def test_attacks_without_the_unerased_model(finished: Path) -> None:
    record = with_attacks(finished, ("uce", "rab", "ok"))
    only = TRIED[TRIED["method"] == "uce"]
    row = measure(record, read_scores(finished / "out"), Store(finished / "store"), only)[-1]
    assert (
        row.metrics["asr"].defined and not row.metrics["robust-rate"].defined and not row.metrics["asr-ideal"].defined
    )


def test_it_imports_no_model(finished: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from erasebench.engine.store import Store\n"
        "from erasebench.results.measure import measure\n"
        "from erasebench.results.record import read_record\nfrom erasebench.results.scores import read_scores\n"
        f"out, store = Path({str(finished / 'out')!r}), Store(Path({str(finished / 'store')!r}))\n"
        "assert len(measure(read_record(out), read_scores(out), store)) == 6\n"
        "assert not {'torch', 'diffusers', 'ultralytics', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
