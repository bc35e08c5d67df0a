"""Standings under attack, and transfer."""

from __future__ import annotations

import base64
import io

import pandas as pd

from erasebench.metrics.metric import describe_metrics
from erasebench.report.page.attacks import standings, transfer_tables
from erasebench.report.page.ranking import by_intervals
from erasebench.report.page.tables import Download
from erasebench.results.attacks import attacks_frame
from tests.report.synthetic import attack_row, trials

RANKING = by_intervals(describe_metrics())


def saved(file: Download) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(base64.b64decode(file.uri.partition(",")[2])))


def test_by_the_robust_rate_where_there_is_an_ensemble() -> None:
    rows = [attack_row(m, "church", "standard", hits, 20) for m, hits in (("sd", 20), ("a", 15), ("b", 0), ("c", 1))]
    (found,) = standings(rows, "sd", "", RANKING)
    assert [(line.method, line.value, line.leading, line.unerased) for line in found.lines] == [
        ("b", "100.0", True, False),
        ("c", "95.0", True, False),
        ("a", "25.0", False, False),
        ("sd", "0.0", False, True),
    ]
    assert found.about.startswith("Robust rate")
    frame = saved(found.downloads[0])
    assert [file.name for file in found.downloads] == ["standings-church.csv", "standings-church.json"]
    assert list(frame["method"]) == ["b", "c", "a", "sd"] and list(frame["leading"]) == [True, True, False, False]
    assert set(frame["attack"]) == {"standard"} and set(frame["metric"]) == {"robust-rate"} and set(frame["n"]) == {20}
    assert frame["value"].tolist() == [100, 95, 25, 0] and (frame["low"] <= frame["value"]).all()


def test_by_the_strongest_attack_otherwise_without_controls() -> None:
    rows = [
        attack_row("a", "church", attack, hits, 20) for attack, hits in (("seed-search", 20), ("rab", 4), ("cce", 6))
    ]
    rows += [attack_row("b", "church", "rab", 2, 20), attack_row("c", "church", "none", 0, 20)]
    (found,) = standings(rows, "sd", "r1-", RANKING)
    assert [(line.method, line.attack, line.value) for line in found.lines] == [
        ("b", "rab", "10.0"),
        ("a", "cce", "30.0"),
    ]
    assert found.lines[0].target == "r1-attacked-b~church"
    frame = saved(found.downloads[0])
    assert list(frame["attack"]) == ["rab", "cce"] and set(frame["metric"]) == {"asr-confirmed"}


def test_controls_alone_make_no_standings() -> None:
    assert standings([attack_row("a", "church", "none", 2)], "sd", "", RANKING) == []


def test_transfer_has_found_by_tried() -> None:
    label = "replay[run=other;method={};by=rab]"
    rows = [
        attack_row("a", "church", label.format("a"), 8),
        attack_row("b", "church", label.format("a"), 1),
        attack_row("b", "church", label.format("b"), 10),
    ]
    (table,) = transfer_tables(trials(rows), "")
    assert [column.title for column in table.columns] == ["Found on", "a", "b"]
    cells = [[cell.text for cell in row.cells] for row in table.rows]
    assert cells == [["a", "80.0", "10.0"], ["b", "\N{EN DASH}", "100.0"]]
    assert table.rows[0].cells[1].tooltip == "8 of 10 prompts" and table.rows[0].cells[1].interval == "[49.0, 94.3]"
    assert transfer_tables(pd.DataFrame(attacks_frame()), "") == []
