"""Runs become rows, and many of them one leaderboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from statsmodels.stats.proportion import proportion_confint

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import Estimate
from erasebench.results.entry import read_rows
from erasebench.results.leaderboard import Entered, merge, rows_of_run
from erasebench.results.record import AttackRecord
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder, read_run
from tests.results.boards import board_row
from tests.results.trials import trials_of


@pytest.fixture(scope="module")
def run(finished: Path) -> RunFolder:
    return read_run(finished / "out")


def test_a_run_has_a_row_for_each_method_and_concept(run: RunFolder) -> None:
    rows = rows_of_run(run)
    assert [(row.method, row.concept, row.status) for row in rows] == [
        (row.method, row.concept, row.status) for row in run.record.rows
    ]
    assert run.record.protocol
    for row, measured in zip(rows, run.rows, strict=True):
        assert row.numbers == measured.metrics and row.flags == measured.flags and row.reason == measured.reason
        if row.status == "ok":
            assert row.protocol == run.record.protocol.checksum(row.concept) and row.judge == measured.judge
    assert len({row.run for row in rows}) == len(rows)
    uce = rows[2]
    assert uce.hyper_parameters["technique"] == "replace" and uce.parameters_changed == 1
    # Cells that many rows share stand once in the costs, with the first of them.
    own = run.costs[run.costs["cell"].isin([key[:12] for key in _keys(run, 2)])]
    assert uce.seconds == pytest.approx(own["seconds"].sum()) and uce.peak_memory_mb == own["peak_memory_mb"].max()
    assert uce.erasure_seconds == own.loc[own["stage"] == "erase", "seconds"].item()
    assert uce.attack_seconds is None and rows[4].seconds is None


def _keys(run: RunFolder, place: int) -> set[str]:
    row = run.record.rows[place]
    concept, retain = row.probes["concept"], row.probes["retain"]
    keys = [row.erasure, concept.images, retain.images, concept.judged[0].cell, retain.judged[0].cell, retain.features]
    return {key for key in keys if key}


def test_attacks_are_columns_of_the_row_that_they_are_on(run: RunFolder) -> None:
    rate, robust = Estimate(30.0, 20.0, 40.0, 20), Estimate(60.0, 40.0, 70.0, 20)

    def tried(name: str, *members: str) -> AttackRecord:
        trials = {member: {"0": "key"} for member in members or (name,)}
        return AttackRecord(method="uce", concept="church", kind="object", attack=name, status="ok", trials=trials)

    attacks = (
        tried("none"),
        tried("cce"),
        tried("standard", "none", "cce"),
        tried("rab").model_copy(update={"status": "failed", "reason": "diverged", "trials": {}}),
    )
    table = [
        TableRow("uce", "church", one.status, one.reason, {"asr-confirmed": rate, "robust-rate": robust, "looks": rate},
                 flags=("weak-budget",) if one.attack == "cce" else (), attack=one.attack)
        if one.status == "ok" else TableRow("uce", "church", one.status, one.reason, attack=one.attack)
        for one in attacks
    ]  # fmt: skip
    frame = trials_of({("uce", "none"): "--", ("uce", "cce"): "cc", ("uce", "standard"): "cc"})
    attacked = replace(
        run,
        record=run.record.model_copy(update={"attacks": attacks}),
        rows=(*run.rows, *table),
        attacks=frame,
    )
    row = rows_of_run(attacked)[2]
    assert [key for key in row.numbers if "@" in key] == [
        "asr-confirmed@none",
        "asr-confirmed@cce",
        "robust-rate@standard",
        "asr-confirmed@standard",
    ]
    assert row.robust == robust and row.reason == "rab failed: diverged" and "weak-budget@cce" in row.flags
    # The ensemble's members stand in the table themselves: its seconds are theirs.
    assert row.attack_seconds == 4.0
    assert row.run != rows_of_run(run)[2].run
    # An older version did not keep how it attacked.
    assert attacked.record.protocol and row.attack_protocol == ""
    protocol = attacked.record.protocol.model_copy(update={"attacks": {"church": {"standard": {"steps": 3}}}})
    known = replace(attacked, record=attacked.record.model_copy(update={"protocol": protocol}))
    assert rows_of_run(known)[2].attack_protocol == protocol.attack_checksum("church", "standard") != ""
    assert rows_of_run(known)[3].attack_protocol == "", "nothing attacked it"


def test_what_is_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="neither the folder of a finished run, nor a leaderboard"):
        read_rows(tmp_path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(EraseBenchError, match="it is not UTF-8 text"):
        read_rows(tmp_path / "image.png")


def test_merging_keeps_each_result_once() -> None:
    row = board_row()
    assert merge([row, row, board_row(method="uce", run="c")]) == [row, board_row(method="uce", run="c")]
    # Read from the run and from a submission: the run's key is the same.
    submission = replace(row, hyper_parameters={**row.hyper_parameters, "more": 1}, entered=Entered(name="ESD"))
    assert merge([row, submission]) == [submission] == merge([submission, row])


def test_a_run_with_more_attacks_takes_the_place_of_the_one_with_fewer() -> None:
    row = board_row()
    fewer = replace(row, run="c", numbers={key: one for key, one in row.numbers.items() if "@" not in key})
    assert merge([fewer, row]) == [row] == merge([row, fewer])
    other = replace(fewer, numbers={**fewer.numbers, "asr-confirmed@cce": Estimate(1.0, 0.0, 2.0, 9)})
    assert [one.note for one in merge([row, other])] == ["one of 2 results of the same label: other attacks"] * 2
    changed = replace(other, note="changed since it was verified")
    assert merge([row, changed])[1].note == f"changed since it was verified; {merge([row, other])[1].note}"


def test_a_run_whose_attack_was_another_takes_the_place_of_none() -> None:
    row = board_row()
    other = replace(row, run="other", attack_protocol="short")
    assert [one.run for one in merge([row, other])] == [row.run, "other"]


def test_the_same_label_with_other_numbers_is_kept_and_said() -> None:
    row = board_row()
    other = replace(row, run="c", numbers={**row.numbers, "ratio": Estimate(9.0, 3.0, 20.0, 40)})
    assert [one.note for one in merge([row, other])] == ["one of 2 results of the same label: other numbers"] * 2
    assert merge(merge([row, other])) == merge([row, other])
    # Another protocol or another seed is another label.
    apart = [row, replace(other, protocol="d"), replace(other, seed=1, run="e")]
    apart.append(replace(other, hyper_parameters={}, run="f"))
    assert [one.note for one in merge(apart)] == [""] * 4


def of_forty(standing: int) -> Estimate:
    """A rate of 40 prompts in per cent, with its interval."""
    low, high = proportion_confint(standing, 40, method="wilson")
    return Estimate(100 * standing / 40, 100 * low, 100 * high, 40)


def test_the_best_known_robust_rate_is_the_lowest() -> None:
    row = board_row()
    assert row.best_known == row.robust == Estimate(75.0, 60.0, 86.0, 40)
    assert replace(row, entered=Entered(external=80.0)).best_known == row.robust
    assert replace(row, entered=Entered(external=40.0)).best_known == of_forty(16)
    assert replace(row, entered=Entered(external=10.0)).best_known == of_forty(4)
    assert replace(row, numbers={}, entered=Entered(external=10.0)).best_known is None
