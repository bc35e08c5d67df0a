from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from erasebench.engine.doctor import examine
from erasebench.engine.store import Store
from tests.engine.runs import CELLS, command, copy_of, done, fast_stages, run_tiny, table


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs, ``out`` and ``other``, with one store."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(folder) == 0
        assert run_tiny(folder, "--concepts", "nudity", "--methods", "uce", "--out", folder / "other") == 0
    return folder


@pytest.fixture
def runs(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fast_stages(monkeypatch)
    copy_of(two, tmp_path)
    monkeypatch.chdir(tmp_path)
    for run in ("out", "other"):
        path = tmp_path / run / "run.yaml"
        path.write_text(path.read_text().replace(str(two), str(tmp_path)))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(r"\d+\.\d MB", "N MB", line) for line in capsys.readouterr().out.splitlines()]


def test_what_is_not_kept_is_shown_and_removed_when_asked_for(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gc = ("store", "gc", "--store", "store", "--keep", "out")
    kept = [f"kept: {CELLS} cells, N MB", "not needed: 7 cells (3 generate, 3 judge, 1 erase), N MB"]
    assert command(*gc) == 0
    *lines, last = shown(capsys)
    assert sorted(re.findall(r"\w+", lines[1])) == sorted(re.findall(r"\w+", kept[1])) and lines[0] == kept[0]
    assert last == "nothing was removed; --yes removes what is not needed"
    assert command(*gc, "other") == 0, "several runs may stand there, as a shell's wildcards give them"
    assert shown(capsys)[1] == "not needed: 0 cells, N MB"
    assert len(Store(runs / "store").cells()) == CELLS + 7
    assert command(*gc, "--yes") == 0
    assert shown(capsys)[-1] == "removed: what is not needed"
    assert len(Store(runs / "store").cells()) == CELLS and run_tiny(runs) == 0 and done(runs) == []


def test_a_run_goes_from_store_to_store(runs: Path, two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("store", "export", "out", "cells.tar") == 0
    assert command("store", "import", "cells.tar", "--store", "second") == 0
    assert command("store", "import", "cells.tar", "--store", "second") == 0
    assert command("store", "copy", "second", "third", "--run", "out") == 0
    assert command("store", "copy", "store", "third") == 0
    assert shown(capsys) == [
        f"exported {CELLS} cells, N MB, to cells.tar",
        f"imported {CELLS} cells, N MB, to second",
        f"imported 0 cells, N MB, to second; {CELLS} were there",
        f"copied {CELLS} cells, N MB, to third",
        f"copied 7 cells, N MB, to third; {CELLS} were there",
    ]
    assert examine(runs / "third") == []
    assert run_tiny(runs, "--store", runs / "second") == 0
    assert done(runs) == [] and table(runs) == table(two)


def test_damage_is_named_and_the_rest_arrives(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("store", "export", "out", "cells.tar") == 0
    key = next(line["cell"] for line in done(runs) if line["stage"] == "generate")
    path = runs / "store" / "cells" / key[:2] / key / "images.zip"
    payload = path.read_bytes()
    damaged = payload[:60] + bytes([payload[60] ^ 1]) + payload[61:]
    path.write_bytes(damaged)
    archive = (runs / "cells.tar").read_bytes()
    (runs / "cells.tar").write_bytes(archive.replace(payload, damaged))
    capsys.readouterr()
    for arguments in (("import", "cells.tar", "--store", "second"), ("copy", "store", "third", "--run", "out")):
        assert command("store", *arguments) == 1
        problem, summary = shown(capsys)
        assert problem == f"cell {key[:12]} is corrupt: images.zip is not what was written: not brought"
        assert f" {CELLS - 1} cells, " in summary
    assert command("store", "export", "out", "again.tar") == 2
    assert f"cell {key[:12]} is corrupt: images.zip" in capsys.readouterr().err and not (runs / "again.tar").exists()


def test_cells_that_are_gone_are_missed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = next(line["cell"] for line in done(runs) if line["stage"] == "judge")
    shutil.rmtree(runs / "store" / "cells" / key[:2] / key)
    missed = f"1 of the {CELLS} cells of out are gone from "
    assert command("store", "export", "out", "cells.tar", "--store", "store") == 0
    assert command("store", "copy", "store", "third", "--run", "out") == 0
    assert command("store", "gc", "--store", "store", "--keep", "out", "other") == 0
    assert sum(line.startswith(missed) for line in shown(capsys)) == 3


def test_the_size_of_a_store(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("store", "size", "--store", "store") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"erase", "generate", "judge", "reference", "in"}
    assert lines[-1].split()[:3] == ["in", "all", str(CELLS + 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("gc --keep othr --store store", "unknown run folder 'othr'; nearest: other"),
        ("gc --keep store --store store", "store is no folder of a finished run: cannot read store/plan.json"),
        ("gc --keep out --store stor", "unknown store 'stor'; nearest: store"),
        ("gc --keep out --store out", "out is no store: it has no store.json"),
        (
            "gc --keep out --store empty",
            "none of the cells of out are in empty; is its store another one? its run.yaml",
        ),
        ("size --store stre", "unknown store 'stre'; nearest: store"),
        ("copy stre second", "unknown store 'stre'; nearest: store"),
        ("copy store out", "out is no store and not empty"),
        ("copy store store", "store and store are the same store"),
        ("copy store second --run othr", "unknown run folder 'othr'; nearest: other"),
        ("copy empty second --run out", "none of the cells of out are in empty"),
        ("export othr cells.tar", "unknown run folder 'othr'; nearest: other"),
        ("export out cells.tar --store empty", "none of the cells of out are in empty; name the run's store"),
        ("export out out/table.csv/cells.tar", "the archive out/table.csv/cells.tar cannot be written"),
        ("import cell.tar --store second", "unknown archive 'cell.tar'; nearest: cells.tar"),
        ("import out/table.csv --store second", "out/table.csv is no whole archive of cells: "),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: str, message: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(runs / "empty")
    (runs / "cells.tar").touch()
    before = sorted(runs.rglob("*"))
    assert command("store", *arguments.split()) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith(f"error: {message}") and error.count("\n") == 1
    assert [path for path in sorted(runs.rglob("*")) if path not in before] == []
