from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from erasebench.engine.cells import IDENTITY_VERSION
from erasebench.engine.doctor import examine, strays
from erasebench.engine.markers import MARKER
from erasebench.engine.store import Store
from erasebench.files import remove
from tests.engine.runs import CELLS, TINY, command, copy_of, done, places, run_tiny, table
from tests.engine.test_leases import killed

pytestmark = pytest.mark.usefixtures("fast")


def flip(folder: Path) -> None:
    path = folder / "images.zip"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def shorten(folder: Path) -> None:
    (folder / "images.zip").write_bytes(b"")


def lose_payload(folder: Path) -> None:
    (folder / "index.csv").unlink()


def lose_marker(folder: Path) -> None:
    (folder / MARKER).unlink()


def tear_marker(folder: Path) -> None:
    (folder / MARKER).write_text((folder / MARKER).read_text()[:40])


def swap_marker(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    marker["identity"]["spec"]["seeds"] = [7, 7]
    (folder / MARKER).write_text(json.dumps(marker))


def leave_partial(folder: Path) -> None:
    folder.rename(folder.with_name(folder.name + ".partial"))


DAMAGE: dict[Callable[[Path], None], str] = {
    flip: "is corrupt: images.zip is not what was written",
    shorten: "is corrupt: its marker does not fit its files",
    lose_payload: "is corrupt: its marker does not fit its files",
    lose_marker: "is incomplete: it has no marker",
    tear_marker: "is corrupt: its marker does not fit its files",
    swap_marker: "is corrupt: its marker belongs to another cell",
    leave_partial: "was being written when its run ended",
}


def a_cell(run: Path) -> str:
    return str(
        next(line["cell"] for line in done(run) if line["title"] == "uce church" and line["stage"] == "generate")
    )


def test_a_sound_store_has_no_problems(fast_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("doctor", "--store", fast_run / "store") == 0
    assert capsys.readouterr().out == f"{fast_run / 'store'}: nothing is damaged\n"


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_named_removed_and_repaired(
    damage: Callable[[Path], None], fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    key = a_cell(tmp_path)
    damage(Store(tmp_path / "store").folder(key))
    for _ in range(2):
        assert command("doctor", "--store", tmp_path / "store") == 1
        out, advice = capsys.readouterr()
        assert out.count("\n") == 1 and key[:12] in out and DAMAGE[damage] in out
        assert advice.startswith(f"`erasebench doctor --fix --store {tmp_path / 'store'}` removes that")
    assert command("doctor", "--store", tmp_path / "store", "--fix") == 0
    assert "removed" in capsys.readouterr().out
    assert command("doctor", "--store", tmp_path / "store") == 0
    assert run_tiny(tmp_path) == 0
    assert [(line["event"], line["cell"]) for line in done(tmp_path)] == [("ok", key)]
    assert table(tmp_path) == table(fast_run)


@pytest.mark.parametrize("damage", [lose_marker, leave_partial])
def test_what_a_run_is_working_on_is_left_alone(
    damage: Callable[[Path], None], fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    store, key = Store(tmp_path / "store"), a_cell(tmp_path)
    damage(store.folder(key))
    with store.leases.holding(key):
        assert command("doctor", "--store", tmp_path / "store", "--fix") == 0
    assert capsys.readouterr().out.endswith("store: nothing is damaged\n")
    assert store.folder(key).exists() or store.leftovers()


def test_without_fix_nothing_is_removed_that_is_no_lease(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    leases = tmp_path / "store" / "leases"
    (leases / "folder.json").mkdir(parents=True)
    (leases / "folder.json" / "precious").write_text("kept")
    (leases / "loop.json").symlink_to("loop.json")
    for _ in range(2):
        assert command("doctor", "--store", tmp_path / "store") == 1
        assert capsys.readouterr().out.splitlines() == [
            f"{leases}/{name}.json is no lease" for name in ("folder", "loop")
        ]
    assert (leases / "folder.json" / "precious").read_text() == "kept" and (leases / "loop.json").is_symlink()
    with Store(tmp_path / "store").leases.holding("folder") as held:
        assert held, "to a run it gives way"
    assert command("doctor", "--store", tmp_path / "store", "--fix") == 0
    assert not list(leases.iterdir())


def test_what_killed_runs_leave_beside_cells_is_named_and_removed(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    store, key = Store(tmp_path / "store"), a_cell(tmp_path)
    process = killed(store.root / "leases", key)
    (store.work(key) / "checkpoint").touch()
    (store.work("0" * 64) / "checkpoint").touch()
    leases = store.root / "leases"
    shutil.copyfile(leases / f"{key}.json", leases / f"{key}.json.ab.partial")
    for _ in range(2):
        assert command("doctor", "--store", store.root) == 1
        stray, lease, work = capsys.readouterr().out.splitlines()
        assert stray == f"{store.root}/leases/{key}.json.ab.partial is no lease"
        assert lease.startswith(f"the lease {key[:12]} is still there of process {process} on ")
        assert lease.endswith(", which has ended")
        assert work == f"{store.root}/work/{key} is left of a cell that is finished"
    assert command("doctor", "--store", store.root, "--fix") == 0
    assert capsys.readouterr().out.count(": removed\n") == 3
    assert command("doctor", "--store", store.root) == 0
    assert [path.name for path in store.works()] == ["0" * 64], "what an unfinished cell goes on from stays"


def test_folders_that_are_no_cells_are_named_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    cells = store.root / "cells" / "ab"
    places = [cells / "folder", cells / ("cd" * 32)]
    for place in places:
        place.mkdir(parents=True)
    assert examine(store.root) == [f"{place} is no cell" for place in sorted(places)] and not store.cells()
    assert examine(store.root, fix=True) == [f"{place} is no cell: removed" for place in sorted(places)]
    assert examine(store.root) == [] and not list(cells.iterdir())


def test_leases_that_a_run_makes_and_gives_back_are_no_strays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key, link, glob = Store(tmp_path / "store"), "ab" * 32, os.link, Path.glob
    looks = list[list[str]]()

    def look_and_link(source: Path, target: Path) -> None:
        looks.append(examine(store.root, fix=True))
        link(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", look_and_link)
        assert store.leases.claim(key).held
    assert looks == [[]], "a lease in the making is no stray"

    def list_and_remove(self: Path, pattern: str) -> list[Path]:
        found = list(glob(self, pattern))
        removed.extend(found)
        for path in found:
            remove(path)
        return found

    store.folder(key).mkdir(parents=True)
    removed = list[Path]()
    monkeypatch.setattr(Path, "glob", list_and_remove)
    assert strays(store.root) == {}, "nor is what is gone when it is looked at"
    assert {path.name for path in removed} == {"ab", f"{key}.json"}


def test_a_run_clears_up_after_those_that_were_killed(fast_run: Path, tmp_path: Path) -> None:
    copy_of(fast_run, tmp_path)
    store, key = Store(tmp_path / "store"), a_cell(tmp_path)
    for name in (key, "run-0", "clearing"):
        killed(store.root / "leases", name)
    (store.work(key) / "checkpoint").touch()
    assert examine(store.root) != []
    assert run_tiny(tmp_path) == 0
    assert done(tmp_path) == [] and examine(store.root) == []


def test_no_lease_says_what_is_removed(fast_run: Path, tmp_path: Path) -> None:
    copy_of(fast_run, tmp_path)
    store, key = Store(tmp_path / "store"), a_cell(tmp_path)
    path = store.root / "leases" / f"{key}.json"
    victim = tmp_path / "victim.partial"
    victim.touch()
    killed(store.root / "leases", key)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"owner": f"/../../../../{victim.stem}"}))
    with store.at_work():
        assert victim.exists() and path.exists()


def test_a_folder_that_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("doctor", "--store", tmp_path) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is no store: it has no store.json\n"
    assert not any(tmp_path.iterdir())
    Store(tmp_path / "store")
    assert command("doctor", "--store", tmp_path / "stroe") == 2
    assert capsys.readouterr().err == f"error: unknown store '{tmp_path}/stroe'; nearest: {tmp_path}/store\n"


def test_cells_of_another_identity_version_are_sound_and_of_no_use(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of(fast_run, tmp_path)
    monkeypatch.setattr("erasebench.engine.cells.IDENTITY_VERSION", 99)
    monkeypatch.setattr("erasebench.engine.doctor.IDENTITY_VERSION", 99)
    assert command("plan", *TINY, *places(tmp_path)) == 0
    assert f"{CELLS} cells: 0 already there, {CELLS} to compute" in capsys.readouterr().out
    assert command("doctor", "--store", tmp_path / "store") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("nothing is damaged")
    assert second.startswith(
        f"{CELLS} cells of {tmp_path / 'store'} are of identity version {IDENTITY_VERSION}, and this"
    )


def test_a_plan_before_and_after_a_run(fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_of(fast_run, tmp_path)
    shutil.rmtree(tmp_path / "store")
    plan = ("plan", *TINY, *places(tmp_path))
    assert command(*plan) == 0
    text = capsys.readouterr().out
    counted = "17 cells: 0 already there, 17 to compute (3 erase, 6 generate, 7 judge, 1 reference)"
    assert counted in text and "\n22 images to make\n" in text
    unknown = "erase negative-prompt, erase sd, erase uce, generate ddim, judge picturebook-clip"
    assert f"\nno estimate of time and disk, since never measured in this store: {unknown}" in text
    assert "generate   uce church retain" in text
    assert not (tmp_path / "store").exists(), "a plan leaves nothing behind"
    assert command(*plan, "--concepts", "phrase:a lamp", "--prompts", "500") == 0
    assert "\nphrase:a lamp has 5 prompts in this domain, not the 500 asked for\n" in capsys.readouterr().out
    (tmp_path / "few.csv").write_text("prompt\na dog\na cat\na dog\n")
    assert command(*plan, "--retain-file", tmp_path / "few.csv") == 0
    assert "\nthere are 2 other prompts, not the 4 asked for\n" in capsys.readouterr().out
    copy_of(fast_run, tmp_path)
    assert command(*plan) == 0
    assert (
        capsys.readouterr().out == f"{CELLS} cells: {CELLS} already there, 0 to compute (nothing)\n0 images to make\n"
    )


def test_a_plan_estimates_from_what_the_store_measured(
    fast_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(fast_run, tmp_path)
    store = Store(tmp_path / "store")
    for key in store.cells():
        path = store.folder(key) / MARKER
        marker = json.loads(path.read_text())
        seconds = {"erase": 30.0, "generate": 2.0 * marker["units"], "judge": 1.0, "reference": 9.0}
        marker["cost"]["seconds"] = seconds[marker["identity"]["stage"]]
        path.write_text(json.dumps(marker))
    assert command("plan", *TINY, *places(tmp_path), "--concepts", "church,tench", "--methods", "uce,esd-x") == 0
    text = capsys.readouterr().out
    # New: tench of sd, uce and esd-x, and church of esd-x; 3 erasures, of which one is like a measured one.
    assert "(3 erase, 7 generate, 7 judge)" in text and "\n20 images to make\n" in text
    assert "\nmore than 1 min 17 s for one worker and 0.0 MB, from speeds measured in this store\n" in text
    assert text.endswith("not in this estimate, since never measured in this store: erase esd-x\n")
    empty = ("--store", tmp_path / "empty")
    assert command("plan", *TINY, *places(tmp_path), *empty, "--speeds-of", tmp_path / "store") == 0
    text = capsys.readouterr().out
    assert (
        "\nabout 2 min 22 s for one worker" in text and f" measured in {tmp_path}/empty or {tmp_path}/store\n" in text
    )
    assert command("plan", *TINY, *places(tmp_path), "--speeds-of", tmp_path / "stroe") == 2
    assert capsys.readouterr().err == f"error: unknown store '{tmp_path}/stroe'; nearest: {tmp_path}/store\n"
