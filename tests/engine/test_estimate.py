from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from erasebench.engine.cells import Cell
from erasebench.engine.estimate import count_missing, estimate, list_missing
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from tests.engine.fake import FakeWorkshop, cascade, cell


def matrix() -> list[Cell]:
    """A cell by itself, one that prepares the second of two attacks, and both attacks on three prompts."""
    learned = cell("learned")
    first, second = cascade(3, [0], learned)
    image = replace(cell("image", units=4), unit="images")
    return [image, learned, *first, *second]


def test_a_batch_is_one_line_and_what_may_prove_unneeded_is_the_most() -> None:
    image, learned, *_ = cells = matrix()
    assert list_missing(cells) == [
        f"fake       image    {image.key[:12]}",
        f"fake       learned  {learned.key[:12]} if it is needed",
        "fake       first    3 cells",
        "fake       second   at most 3 cells",
    ]
    assert list_missing([]) == []
    assert count_missing(cells, [*cells, cell("there")]) == [
        "9 cells: 1 already there, at most 8 to compute (at most 8 fake)",
        "4 images to make",
    ]
    assert count_missing(cells[2:5], cells)[0] == "8 cells: 5 already there, 3 to compute (3 fake)"


def test_an_estimate_has_the_most_memory_of_each_stage(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image, other = (replace(cell(name), kind=name) for name in ("image", "other"))
    for place, (kind, peak) in enumerate((("image", 900.0), ("image", 1234.0), ("other", 5000.0), ("alone", None))):
        with store.writing(
            replace(cell(f"done {place}"), kind=kind), {"seconds": 1.0, "peak_memory_mb": peak}
        ) as folder:
            (folder / "payload").write_text("x")
    memory = "peak memory of one worker, as measured in this store: "
    assert f"{memory}fake 1.2 GB" in estimate([image], [store])
    assert f"{memory}fake 5.0 GB" in estimate([image, other], [store])
    assert not any(memory in line for line in estimate([replace(cell("new"), kind="alone")], [store]))


def test_an_estimate_says_where_it_is_the_most(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "signs").mkdir()
    LocalRunner(FakeWorkshop(store, tmp_path / "signs")).run([cell("measured", "tick")], store, [])
    image, learned, *others = matrix()
    unknown = replace(cell("never"), kind="never measured")
    starts = {
        "about": [image, *others[:3]],
        "at most": [image, learned, *others],
        "more than": [image, unknown],
        "about ": [image, unknown, *others],
    }
    for start, cells in starts.items():
        line = estimate(cells, [store])[0]
        assert line.startswith(f"{start.strip()} ") and not line.startswith("about at"), line


def test_an_estimate_takes_from_another_store_what_its_own_never_measured(tmp_path: Path) -> None:
    own, other = Store(tmp_path / "own"), Store(tmp_path / "other")
    for store, kind, seconds in ((own, "image", 10.0), (other, "image", 1000.0), (other, "erasure", 300.0)):
        with store.writing(replace(cell(f"done {kind}"), kind=kind), {"seconds": seconds}) as folder:
            (folder / "payload").write_text("x")
    image, erasure = missing = [replace(cell(name), kind=name) for name in ("image", "erasure")]
    assert estimate([image], [own, other])[0].startswith("about 10 s for one worker")
    assert estimate([image], [other, own])[0].startswith("about 16 min 40 s for one worker")
    assert estimate(missing, [own])[0].startswith("more than 10 s")
    assert estimate(missing, [own, other]) == [
        f"about 5 min 10 s for one worker and 0.0 MB, from speeds measured in {own.root} or {other.root}"
    ]
    assert estimate([erasure], [own]) == [
        "no estimate of time and disk, since never measured in this store: fake erasure"
    ]
