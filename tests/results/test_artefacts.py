from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.report.entries import write_entries
from erasebench.results.artefacts import artefact_folder, changed_artefacts, read_artefacts, recompute
from erasebench.results.entry import read_entry
from erasebench.results.run_folder import read_run
from tests.results.boards import edit


def test_its_artefacts_give_its_numbers(path: Path) -> None:
    entry, folder = read_entry(path), artefact_folder(path)
    assert changed_artefacts(entry, folder) == []
    assert {file.name for file in folder.iterdir()} == set(entry.artefacts)
    (row,) = recompute(read_artefacts(folder)).values()
    assert set(entry.metrics) - set(row.metrics) == {"fid"}, "the one that needs images"
    for key, estimate in row.metrics.items():
        said = entry.metrics[key].estimate
        found = (estimate.value, estimate.low, estimate.high, estimate.n)
        # The table has six digits.
        assert (said.value, said.low, said.high, said.n) == pytest.approx(found, rel=5e-6, nan_ok=True)
    assert row.flags == entry.flags


def test_damaged_artefacts_are_found(path: Path) -> None:
    entry, folder = read_entry(path), artefact_folder(path)
    with open(folder / "scores.csv", "a") as stream:
        stream.write("\n")
    (wrong,) = changed_artefacts(entry, folder)
    assert wrong.startswith("scores.csv is not the file that was submitted: its SHA-256 is ")
    (folder / "images.json").write_text("{}")
    with pytest.raises(EraseBenchError, match=r"an artefact in .* is damaged: .*concept Field required"):
        read_artefacts(folder)
    shutil.rmtree(folder)
    with pytest.raises(EraseBenchError, match=r"cannot read the artefact .*No such file"):
        changed_artefacts(entry, folder)


def test_an_artefact_elsewhere_is_refused(path: Path) -> None:
    edit(path, artefacts={"../../secret": "0" * 64})
    with pytest.raises(EraseBenchError, match=r"the artefact '../../secret' is no file of the folder"):
        changed_artefacts(read_entry(path), artefact_folder(path))


def test_weights_can_stay_where_they_are(finished: Path, tmp_path: Path) -> None:
    paths, _ = write_entries(read_run(finished / "out"), tmp_path, weights=False)
    entry, folder = read_entry(paths[0]), artefact_folder(paths[0])
    assert not (folder / "erasure.safetensors").exists() and "erasure.safetensors" in entry.artefacts
    with pytest.raises(EraseBenchError, match=r"cannot read the artefact .*erasure.safetensors.*--erase makes"):
        changed_artefacts(entry, folder)
    assert changed_artefacts(entry, folder, frozenset({"erasure.safetensors"})) == []


@pytest.mark.parametrize("line", ["[" * 100_000, f'{{"key": "0", "seconds": {10**400}, "arrays": []}}'])
def test_a_trial_that_no_reader_takes_is_damage(line: str, path: Path) -> None:
    (artefact_folder(path) / "trials.jsonl").write_text(f"{line}\n")
    with pytest.raises(EraseBenchError, match=r"an artefact in .* is damaged: (maximum recursion|int too large)"):
        read_artefacts(artefact_folder(path))
