"""A second judge of a concept's images: it adds its opinion, and changes no number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.images import read_index
from erasebench.judging import Scores, write_scores
from erasebench.plugins import UNATTACKED
from erasebench.report.entries import write_entries
from erasebench.results.attacks import frame_trials
from erasebench.results.compare import compare
from erasebench.results.leaderboard import rows_of_run
from erasebench.results.record import AttackRecord, read_record
from erasebench.results.run_folder import read_run
from erasebench.results.scores import read_scores, split_judges
from erasebench.stages.session import Session
from tests.engine.runs import command, done, fast_judge, fast_stages, run_tiny
from tests.marks import first_quick
from tests.results.trials import trial

MORE = ("--concepts", "church,nudity", "--images-per-prompt", "3", "--erasure-seeds", "1")
SECOND = "clip-phrase[threshold=0.4]"
AGREEMENT = ["agreement", "agreement_low", "agreement_high", "agreement_n", "agreement_with"]


def judge_otherwise(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Another judge gives other scores."""
    if cell.spec["judge"] != "clip-phrase":
        return fast_judge(cell, session, folder)
    ids, _, seeds = read_index(session.store.read(cell.reads["images"].key))
    values = np.random.default_rng(int(cell.key[:8], 16)).random(len(ids), dtype=np.float32)
    write_scores(folder, Scores({cell.spec["label"]: values}), ids, seeds)
    return {"images": len(ids)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the run ``out`` without a second judge and the run ``twice`` with one, of the same store."""
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        patch.setattr("erasebench.stages.judge.run", judge_otherwise)
        assert run_tiny(folder, *MORE) == 0
        assert run_tiny(folder, *MORE, "--second-judge", SECOND, "--out", folder / "twice") == 0
        yield folder


def test_it_computed_nothing_but_its_own_scores(runs: Path) -> None:
    ledger = [json.loads(line) for line in (runs / "twice" / "ledger.jsonl").read_text().splitlines()]
    titles = [line["title"] for line in ledger if line["event"] == "ok"]
    assert len(titles) == 6 and all(title.endswith(": clip-phrase") for title in titles)


def test_every_number_is_the_same_without_it(runs: Path) -> None:
    once, twice = (pd.read_csv(runs / name / "table.csv", dtype=str) for name in ("out", "twice"))
    assert [name for name in twice.columns if name not in once.columns] == AGREEMENT
    pd.testing.assert_frame_equal(twice[list(once.columns)], once)
    assert len((runs / "out" / "ranks.csv").read_text().splitlines()) > 4, "there are ranks to be the same"
    for name in ("ranks.csv", "seeds.csv"):
        assert (runs / "out" / name).read_bytes() == (runs / "twice" / name).read_bytes()
    assert read_record(runs / "out").protocol == read_record(runs / "twice").protocol


@pytest.mark.parametrize("fail_on", first_quick([None, ["ratio", "score", "clip", "fid"]]))
def test_runs_are_compared_by_the_first_judge(runs: Path, fail_on: list[str] | None) -> None:
    once, twice = (read_run(runs / name) for name in ("out", "twice"))
    wanted = compare(once, once, fail_on).changes
    assert any(change.unmoved for change in wanted if change.metric == "ratio")
    for pair in ((once, twice), (twice, once), (twice, twice)):
        assert repr(compare(*pair, fail_on).changes) == repr(wanted)


def test_the_scores_and_the_record_name_both_judges(runs: Path) -> None:
    record, scores = read_record(runs / "twice"), read_scores(runs / "twice")
    store = Store(runs / "store", make=False)
    for row in record.rows:
        first, second = row.probes["concept"].judged
        assert (first.judge, first.threshold) == ("picturebook-detector", 0.5)
        assert (second.judge, second.label, second.threshold) == ("clip-phrase", row.concept, 0.4)
        assert store.check(second.cell) is None and len(row.probes["retain"].judged) == 1
        own = scores[(scores.method == row.method) & (scores.concept == row.concept) & (scores.probe == "concept")]
        assert own["judge"].value_counts().to_dict() == {"picturebook-detector": 6, "clip-phrase": 6}
        assert own.groupby("judge")["threshold"].unique().map(list).to_dict() == {
            "picturebook-detector": [0.5],
            "clip-phrase": [0.4],
        }
    counted, further = split_judges(record, scores)
    pd.testing.assert_frame_equal(counted.reset_index(drop=True), read_scores(runs / "out"))
    assert set(further["judge"]) == {"clip-phrase"} and len(counted) + len(further) == len(scores)
    alone, none = split_judges(read_record(runs / "out"), counted)
    assert alone.equals(counted) and none.empty


def test_the_table_says_how_far_they_agree(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = pd.read_csv(runs / "twice" / "scores.csv")
    own = scores[scores["probe"] == "concept"]
    shown = own.assign(shown=own["score"] >= own["threshold"]).pivot(
        index=["method", "concept", "image"], columns="judge", values="shown"
    )
    same = shown["clip-phrase"] == shown["picturebook-detector"]
    wanted = 100 * same.groupby(["method", "concept"]).mean()
    assert 0 < wanted.mean() < 100
    for row in read_run(runs / "twice").rows:
        agreement = row.metrics["agreement"]
        assert agreement.value == pytest.approx(wanted[row.method, row.concept], rel=1e-5)
        assert agreement.low < agreement.value < agreement.high or agreement.value in (0, 100)
        assert agreement.n == 6 and row.notes["agreement"] == f"clip-phrase: {row.concept} >= 0.4"
    assert command("report", runs / "twice", "--no-images", "--out", runs / "report.html") == 0
    assert "Second judge of church, which no other number counts: clip-phrase: church" in (
        (runs / "report.html").read_text()
    )


def test_trials_are_compared_with_what_the_first_judge_says(runs: Path) -> None:
    """A prompt drawn again has the same score by the judge that attacks are counted by."""
    record, scores = read_record(runs / "twice"), read_scores(runs / "twice")
    first, second = (one[one["probe"] == "concept"].iloc[0] for one in split_judges(record, scores))
    assert (first.prompt_id, first.seed) == (second.prompt_id, second.seed) and first.score != second.score
    drawn = replace(trial(first.prompt_id), seed=first.seed, score=first.score)
    attack = AttackRecord(
        **{"method": first.method, "concept": first.concept, "kind": "object", "attack": UNATTACKED, "status": "ok"},
        trials={UNATTACKED: {first.prompt_id: "key"}},
    )
    attacked = record.model_copy(update={"attacks": (attack,)})
    assert list(frame_trials(attacked, scores, lambda _: (drawn, 1.0))["stochastic"]) == [0.0]


def test_leaderboards_and_entries_are_of_the_first_judge(runs: Path, tmp_path: Path) -> None:
    once, twice = (rows_of_run(read_run(runs / name)) for name in ("out", "twice"))
    assert [(row.run, repr(row.numbers), row.seconds) for row in once] == [
        (row.run, repr(row.numbers), row.seconds) for row in twice
    ]
    for name in ("out", "twice"):
        write_entries(read_run(runs / name), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert files
    for path in files:
        if path.name != "plan.json" and path.suffix != ".json":
            assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "twice" / path).read_bytes()
    assert "clip-phrase" not in "".join(path.read_text() for path in (tmp_path / "twice").rglob("*.json"))


@pytest.mark.slow
def test_the_report_can_show_what_they_disagree_on(runs: Path, tmp_path: Path) -> None:
    for name, enabled in (("out", False), ("twice", True)):
        path = tmp_path / f"{name}.html"
        assert command("report", runs / name, "--store", runs / "store", "--out", path) == 0
        text = path.read_text(encoding="utf-8")
        assert ("each image has one judge" not in text) == enabled
        assert ("data-disputed>" in text or "data-disputed " in text) == enabled
        assert ("second judge clip-phrase: church &gt;= 0.4" in text) == enabled


def test_a_run_of_its_own_file_is_the_same_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = yaml.safe_load((runs / "twice" / "run.yaml").read_text(encoding="utf-8"))
    assert written["second_judge"] == SECOND
    fast_stages(monkeypatch)
    monkeypatch.setattr("erasebench.stages.judge.run", judge_otherwise)
    assert command("run", "--config", runs / "twice" / "run.yaml", "--out", tmp_path / "out") == 0
    assert not done(tmp_path)
    assert (tmp_path / "out" / "table.csv").read_bytes() == (runs / "twice" / "table.csv").read_bytes()
