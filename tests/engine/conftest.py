from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.runs import fast_stages, run_tiny


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)


@pytest.fixture(scope="session")
def fast_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with fast stages, to be copied."""
    folder = tmp_path_factory.mktemp("fast")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(folder) == 0
    yield folder
