"""The fixtures of several of this folder's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.store import Store
from tests.engine.fake import FakeWorkshop


@pytest.fixture
def workshop(tmp_path: Path) -> FakeWorkshop:
    (tmp_path / "signs").mkdir()
    return FakeWorkshop(Store(tmp_path / "store"), tmp_path / "signs")
