"""What older commits left, read by today's code; `tests/golden/README.md` says what these stores are."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from erasebench.engine import cells, doctor
from erasebench.engine.cells import IDENTITY_VERSION
from erasebench.engine.markers import VERIFIED
from erasebench.engine.store import Store
from erasebench.results.record import read_record
from tests.engine.runs import CELLS, command, done, fast_stages, load_once, run_tiny
from tests.golden.stores import RUN, UNERASED, unpack
from tests.marks import first_quick

COUNT = 18
READABLE = ("first-attacks", "first-protocol", "locks", "plain-rates")
"""Those that today's code reads as its own."""
RESULTS = ("table.csv", "table.md", "scores.csv", "attacks.csv", "ranks.csv", "seeds.csv")
MEANING = (
    "what this code reads or makes is no longer what the last version wrote: tests/golden/README.md says which version "
    "to raise, and how to add a store"
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("golden"))


@pytest.fixture(params=first_quick(READABLE))
def golden(request: pytest.FixtureRequest, unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return at(unpacked / request.param, tmp_path, monkeypatch)


@pytest.fixture
def today(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return at(unpacked / "today", tmp_path, monkeypatch)


@pytest.fixture
def old(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return at(unpacked / "identity-1", tmp_path, monkeypatch)


def at(golden: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, in which the test is."""
    shutil.copytree(golden, to, dirs_exist_ok=True)
    monkeypatch.chdir(to)
    return to


def contents(store: Path) -> dict[str, str]:
    """The hash of every file but the notes that only save time."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != VERIFIED
    }


def layout(store: Store) -> dict[str, object]:
    """Of each cell the names of its files, the first lines of tables, and names, types and shapes of tensors."""
    found: dict[str, object] = {}
    for key in store.cells():
        for path in sorted(store.folder(key).iterdir()):
            name = f"{key} {path.name}"
            if path.suffix == ".csv":
                found[name] = path.read_text().splitlines()[0]
            elif path.suffix == ".safetensors":
                with safe_open(path, "np") as tensors:
                    slices = {each: tensors.get_slice(each) for each in tensors.keys()}  # noqa: SIM118
                    found[name] = {each: (part.get_dtype(), part.get_shape()) for each, part in slices.items()}
            elif path.name != VERIFIED:
                found[name] = "there"
    return found


def check_today(capsys: pytest.CaptureFixture[str]) -> None:
    """Hold what today's code reads of today's store against what wrote it."""
    assert command("doctor", "--store", "store") == 0
    assert capsys.readouterr().out == "store: nothing is damaged\n", MEANING
    assert command("plan", *RUN, "--store", "store") == 0
    assert f"{COUNT} cells: {COUNT} already there, 0 to compute" in capsys.readouterr().out, MEANING
    assert command("run", *RUN, "--store", "store", "--out", "again") == 0
    for name in RESULTS:
        assert Path("again", name).read_bytes() == Path("run", name).read_bytes(), f"{name}: {MEANING}"
    records = [read_record(Path(folder)).model_copy(update={"files": {}}) for folder in ("again", "run")]
    assert records[0] == records[1], MEANING


def test_the_last_version_is_read_byte_for_byte(today: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(today / "store")
    check_today(capsys)
    assert contents(today / "store") == before


def test_a_change_of_identity_does_not_go_unnoticed(
    today: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "IDENTITY_VERSION", 99)
    monkeypatch.setattr(doctor, "IDENTITY_VERSION", 99)
    with pytest.raises(AssertionError, match="says which version to raise"):
        check_today(capsys)


@pytest.mark.slow
def test_a_table_that_is_made_in_another_way_does_not_go_unnoticed(
    today: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.metrics.stats.wilson", lambda *_, **__: (0.0, 1.0))
    with pytest.raises(AssertionError, match=r"table\.csv: .* says which version to raise"):
        check_today(capsys)


@pytest.mark.parametrize(
    ("options", "count"),
    [(UNERASED, 7), pytest.param(RUN, COUNT, marks=pytest.mark.slow)],
    ids=["unerased", "all"],
)
def test_what_is_computed_today_has_the_layout_that_the_last_version_wrote(
    options: tuple[str, ...], count: int, today: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real model and judges; the numbers differ from processor to processor."""
    load_once(monkeypatch)
    assert command("run", *options, "--store", "anew", "--out", "out") == 0
    anew = layout(Store(today / "anew"))
    assert len({key.split()[0] for key in anew}) == count
    assert anew.items() <= layout(Store(today / "store")).items(), MEANING


def test_stores_of_the_same_identity_are_read_as_equal(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(golden / "store")
    assert command("doctor", "--store", "store") == 0
    assert capsys.readouterr().out == "store: nothing is damaged\n"
    assert command("plan", *RUN, "--store", "store") == 0
    assert capsys.readouterr().out.startswith(f"{COUNT} cells: {COUNT} already there, 0 to compute")
    assert command("run", "--config", "run/run.yaml", "--out", "out") == 0
    assert done(golden) == [], "nothing is computed"
    assert contents(golden / "store") == before


@pytest.mark.slow
def test_stores_of_the_same_identity_are_kept_and_passed_on(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(golden / "store")
    assert command("run", "--config", "run/run.yaml", "--out", "out") == 0
    assert command("compare", "out", "out") == 0
    capsys.readouterr()
    assert command("store", "size", "--store", "store") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["in", "all", str(COUNT)]
    assert command("store", "copy", "store", "copied", "--run", "run") == 0
    assert command("store", "export", "run", "cells.tar") == 0
    assert command("store", "import", "cells.tar", "--store", "imported") == 0
    for store in ("copied", "imported"):
        assert {*Store(Path(store)).cells()} == {*Store(Path("store")).cells()}
    assert command("store", "gc", "--keep", "run", "--store", "store") == 0
    assert f"kept: {COUNT} cells" in capsys.readouterr().out
    assert contents(golden / "store") == before


def test_run_folders_of_older_versions_are_read(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("report", "run") == 0
    assert command("export", "run", "--csv", "rows.csv") == 0
    assert capsys.readouterr().err == "2 rows in rows.csv\n"


def test_a_run_that_did_not_keep_how_it_measured_is_not_compared(
    unpacked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = unpacked / "first-attacks" / "run", unpacked / "today" / "run"
    assert command("compare", first, last) == 2
    assert capsys.readouterr().err == (
        f"error: {first} does not say how it measured, since an older erasebench wrote it: whether it can be compared "
        "is not known; run it again\n"
    )


def test_a_store_of_another_identity_version_is_sound(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(old / "store")
    said = (
        f"12 cells of store are of identity version 1, and this erasebench reads and makes version {IDENTITY_VERSION}: "
        "they are sound, and of use only to the erasebench that wrote them"
    )
    for fix in ((), ("--fix",)):
        assert command("doctor", "--store", "store", *fix) == 0
        assert capsys.readouterr().out == f"store: nothing is damaged\n{said}\n"
    assert command("plan", "--config", "run/run.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert said in lines and any(line.startswith("12 cells: 0 already there, 12 to compute") for line in lines)
    assert command("store", "size", "--store", "store") == 0
    assert "damaged" not in capsys.readouterr().out
    assert command("store", "copy", "store", "copied") == 0
    assert contents(old / "copied").keys() - {"store.json"} == {name for name in before if name.startswith("cells/")}
    assert command("doctor", "--store", "copied") == 0
    assert contents(old / "store") == before


def test_a_run_beside_cells_of_another_identity_version_says_so_and_leaves_them(
    old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_stages(monkeypatch)
    before = contents(old / "store")
    said = "12 cells of store are of identity version 1, and this erasebench"
    for times in (1, 0):
        assert run_tiny(old, "--store", "store") == 0
        assert capsys.readouterr().err.count(said) == times
    assert len(Store(old / "store").cells()) == CELLS + 12
    assert before.items() <= contents(old / "store").items()


@pytest.mark.parametrize(
    "arguments",
    [
        *("report run", "export run --csv rows.csv", "compare run run"),
        *("store copy store copied --run run", "store export run cells.tar", "store gc --keep run --store store"),
    ],
)
def test_a_run_folder_without_a_record_is_refused_in_one_line(
    arguments: str, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(old)
    assert command(*arguments.split()) == 2
    assert capsys.readouterr().err == (
        "error: run is no folder of a finished run: cannot read run/plan.json: No such file or directory; an older "
        "erasebench wrote its table, or it was cut short: the same `erasebench run` again writes it\n"
    )
    assert contents(old) == before


def test_damage_in_an_older_store_is_seen(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next((old / "store").glob("cells/*/*/images.zip"))
    payload = bytearray(path.read_bytes())
    payload[60] ^= 1
    path.write_bytes(payload)
    assert command("doctor", "--store", "store") == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"cell {path.parent.name[:12]} is corrupt: images.zip is not what was written"
    assert second.startswith("12 cells of store are of identity version 1")
