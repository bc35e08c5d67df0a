"""Runs with attacks on the built-in model, from the command line to the run folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from erasebench.engine.store import Store
from erasebench.results.attacks import read_attacks
from erasebench.results.record import read_record
from erasebench.results.rows import TableRow
from erasebench.results.table import read_csv
from erasebench.stages import attack as stage
from tests.engine.runs import command, copy_of, done, load_once
from tests.marks import first_quick

TINY = (
    *("--preset", "smoke", "--device", "cpu", "--workers", "1", "--prompts", "2"),
    *("--retain-prompts", "2", "--reference-images", "4", "--attack-prompts", "2"),
)
ON_CHURCH = ("run", "--methods", "uce", "--concepts", "church", *TINY)
EVERY, FEW = "all", "random-prefix,unlearndiff,soft-prompt"
"""Attacks; a few are the cheapest of each threat model."""
of_every = pytest.mark.parametrize("attacks", [pytest.param(EVERY, marks=pytest.mark.slow)], indirect=True)


def places(folder: Path, out: str = "out") -> tuple[str | Path, ...]:
    return ("--store", folder / "store", "--out", folder / out)


@pytest.fixture(scope="module", params=first_quick([FEW, EVERY]))
def attacks(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def steps(attacks: str) -> tuple[str, ...]:
    """Sampling steps: after two of them attacks find something."""
    return ("--steps", "2" if attacks == EVERY else "1")


@pytest.fixture(scope="module")
def run(steps: tuple[str, ...]) -> tuple[str, ...]:
    """A command."""
    return (*ON_CHURCH, *steps)


@pytest.fixture(scope="module")
def finished(run: tuple[str, ...], attacks: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of attacks."""
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        folder = tmp_path_factory.mktemp("attacked")
        assert command(*run, "--attacks", attacks, "--floor-prompts", "1", *places(folder)) == 0
        yield folder


def table(folder: Path) -> list[TableRow]:
    return read_csv((folder / "table.csv").read_text(encoding="utf-8"))


def test_every_attack_has_a_row_for_every_method(finished: Path, attacks: str, steps: tuple[str, ...]) -> None:
    rows = [row for row in table(finished / "out") if row.attack]
    names = list(dict.fromkeys(row.attack for row in rows))
    if attacks == EVERY:
        assert len(names) == 15 and names[0] == "none" and names[-1] == "standard"
    else:
        assert names == ["none", *FEW.split(",")]
    assert [(row.method, row.attack) for row in rows] == [
        (method, attack) for method in ("sd", "uce") for attack in names
    ]
    assert {row.status for row in rows} == {"ok"}
    trials = read_attacks(finished / "out")
    assert (trials[~trials["floor"]].groupby(["method", "attack"]).size() == 2).all()
    assert (trials[trials["floor"]].groupby(["method", "attack"]).size() == 1).all()
    assert (trials["looks"] >= 1).all() and (trials["passes"] >= 2 * int(steps[-1])).all()
    assert trials[trials["attack"] == "none"]["stochastic"].dropna().max() < 1e-3


@of_every
def test_the_cascade_breaks_what_some_member_breaks(finished: Path) -> None:
    trials = read_attacks(finished / "out")
    trials = trials[~trials["floor"]]
    for ensemble in ("standard", "p4d-union"):
        of = next(row for row in read_record(finished / "out").attacks if row.attack == ensemble)
        alone = trials[trials["attack"].isin(of.trials)]
        union = alone.groupby(["method", "prompt_id"])["confirmed"].any()
        both = trials[trials["attack"] == ensemble].set_index(["method", "prompt_id"])["confirmed"]
        pd.testing.assert_series_equal(both.sort_index(), union.sort_index())


def test_its_folder_has_tables_charts_and_sheets(finished: Path) -> None:
    out = finished / "out"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert {"attacks.csv", "dark_miner.md", "charts/radar-church.png", "charts/radar-church.svg"} <= names
    assert "grids/attacked-uce-church.png" in names
    assert "| uce |" in (out / "dark_miner.md").read_text(encoding="utf-8")
    assert "unlearndiff: " in (out / "table.md").read_text(encoding="utf-8"), "budgets are stated"


@pytest.mark.slow
def test_a_rule_of_guidance_is_attacked_as_weights_are(run: tuple[str, ...], finished: Path) -> None:
    """By one attack of each threat model."""
    options = ("--methods", "sld-strong", "--attacks", FEW, "--attack-prompts", "1")
    assert command(*run, *options, *places(finished, "guided")) == 0
    assert [(row.method, row.attack, row.status) for row in table(finished / "guided") if row.attack] == [
        (method, attack, "ok") for method in ("sd", "sld-strong") for attack in ("none", *FEW.split(","))
    ]
    assert (finished / "guided" / "grids" / "attacked-sld-strong-church.png").exists()


def test_again_computes_nothing_and_one_attack_alone_is_taken_from_the_store(
    run: tuple[str, ...], steps: tuple[str, ...], finished: Path, attacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (finished / "out").glob("*.csv")}
    monkeypatch.setattr("erasebench.stages.session.Session.work", _fail)
    assert command(*run, "--attacks", attacks, "--floor-prompts", "1", *places(finished)) == 0
    assert done(finished) == []
    same = [path.name for path, content in before.items() if path.read_bytes() == content]
    assert {"table.csv", "attacks.csv", "scores.csv"} <= set(same)
    alone = ("attack", "--method", "uce", "--attack", "unlearndiff", "--concept", "church", *TINY, *steps)
    assert command(*alone, *places(finished, "alone")) == 0
    assert {(row.method, row.attack) for row in table(finished / "alone")} == {
        (method, attack) for method in ("sd", "uce") for attack in ("none", "unlearndiff")
    }


def _fail(*args: Any) -> Any:
    raise AssertionError("something is computed")


@of_every
def test_what_was_found_on_one_method_is_tried_on_another(
    run: tuple[str, ...], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--methods", "uce,sld-strong", "--prompts-from", finished / "out")
    assert command(*run, *options, *places(finished, "replayed")) == 0
    matrix = pd.read_csv(finished / "replayed" / "transfer.csv")
    assert set(matrix["found_on"]) == {"sd", "uce"} and set(matrix["tried_on"]) == {"sd", "uce", "sld-strong"}
    assert {"rab", "unlearndiff", "p4d-n"} <= set(matrix["attack"]) and "cce" not in set(matrix["attack"])
    assert command(*run, "--prompts-from", finished / "store", *places(finished, "no")) == 2
    assert "is no folder of a finished run" in capsys.readouterr().err


def test_a_run_that_is_stopped_goes_on_where_it_was(
    run: tuple[str, ...], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in an attack, with the same table at the end as if it had never been; the unerased model was attacked."""
    load_once(monkeypatch)
    store = Store(copy_of(finished / "store", tmp_path / "store"))
    rows = [row for row in read_record(finished / "out").attacks if row.method == "uce"]
    for key in {key for row in rows for trials in row.trials.values() for key in trials.values()}:
        store.remove(key)
    options = (*run, "--attacks", "random-prefix,unlearndiff")
    real, calls = stage.run_together, 0

    def stopped(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "run_together", stopped)
        assert command(*options, *places(tmp_path)) == 130
    assert command(*options, *places(tmp_path)) == 0
    again = [line["title"] for line in done(tmp_path, "ok")]
    assert again and all(title.startswith("unlearndiff uce") for title in again), again
    columns = ["method", "attack", "prompt_id", "found", "raw", "confirmed", "score"]
    found, known = read_attacks(tmp_path / "out")[columns], read_attacks(finished / "out")
    known = known[known["method"].isin(["sd", "uce"]) & ~known["floor"] & known["attack"].isin(found["attack"])]
    pd.testing.assert_frame_equal(
        found.sort_values(columns).reset_index(drop=True), known[columns].sort_values(columns).reset_index(drop=True)
    )


@pytest.mark.slow
def test_the_batch_changes_nothing_but_rounding(
    run: tuple[str, ...], finished: Path, attacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_once(monkeypatch)
    chosen = "random-prefix,unlearndiff,p4d-n,rab" if attacks == EVERY else "random-prefix,unlearndiff"
    assert command(*run, "--attacks", chosen, "--batch-size", "1", *places(tmp_path)) == 0
    columns = ["method", "attack", "prompt_id"]
    found = read_attacks(tmp_path / "out").set_index(columns).sort_index()
    known = read_attacks(finished / "out")
    known = known[~known["floor"]].set_index(columns).loc[found.index].sort_index()
    assert found["found"].tolist() == known["found"].tolist()
    assert found["score"].to_numpy() == pytest.approx(known["score"].to_numpy(), abs=2e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attacks", "unlearndif"), "unknown attack 'unlearndif'; nearest: unlearndiff"),
        (("--attacks", "rab[population=0]"), "attack rab[population=0]: population: Input should be greater"),
        (("--attacks", "replay[run=nowhere;method=uce;by=rab]"), "nowhere is no folder of a finished run: cannot read"),
        (("--attack-prompts", "0"), "attack_prompts"),
        (("--prompts-from", "nowhere"), "nowhere is no folder of a finished run"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*ON_CHURCH, *options, *places(tmp_path)) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not any(tmp_path.iterdir())


def test_an_attack_of_no_method_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("attack", "--method", "", "--attack", "none", "--concept", "church", *places(tmp_path)) == 2
    assert capsys.readouterr().err == "error: --method names none; `erasebench list methods` shows them\n"
