"""Stores are opened in folders and in buckets; what is in a bucket is in ``test_objects.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.opening import LazyStore, open_store, store_at, store_to_read
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from tests.engine.fake import cell

ONE = cell("one")


def test_a_store_in_a_folder_is_made_where_it_is_to_be_and_nowhere_else(tmp_path: Path) -> None:
    for store in (store_at(tmp_path / "none", make=False), store_to_read(tmp_path / "none")):
        assert store.find(ONE.key) == "is missing" and store.cells() == []
    assert not list(tmp_path.iterdir())
    made = store_at(tmp_path / "store")
    with made.writing(ONE, {"seconds": 0.0}) as folder:
        (folder / "payload").write_text("1")
    for store in (open_store(tmp_path / "store", make=False), store_to_read(tmp_path / "store")):
        assert type(store) is Store and (store.read(ONE.key) / "payload").read_text() == "1"


def test_a_store_that_is_not_there_is_not_opened_and_the_nearest_is_named(tmp_path: Path) -> None:
    store_at(tmp_path / "my-store")
    with pytest.raises(EraseBenchError, match=r"unknown store '.*/my-stroe'; nearest: .*/my-store"):
        open_store(tmp_path / "my-stroe")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(EraseBenchError, match=r"thesis is no store: it has no store\.json"):
        open_store(tmp_path / "thesis")
    assert not list((tmp_path / "thesis").iterdir())


def test_a_store_in_a_bucket_is_not_asked_for_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []

    class Opened(Store):
        def __init__(self, *how: object) -> None:
            asked.append(how)
            super().__init__(tmp_path, make=False)

        def read(self, key: str) -> Path:
            return self.root / key

    monkeypatch.setattr("erasebench.engine.opening.open_store", lambda place, make: Opened(place, make))
    store = store_to_read("s3://bucket/a")
    assert isinstance(store, LazyStore) and store.name == "s3://bucket/a" and not asked
    assert (store.read("x"), store.read("y")) == (tmp_path / "x", tmp_path / "y")
    assert asked == [("s3://bucket/a", False)], "once, and nothing may be made there"
