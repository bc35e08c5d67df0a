from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from erasebench.engine.store import Store
from erasebench.registry import ATTACKS
from erasebench.stages.session import Session
from tests.attacks.planted import planted_model
from tests.stages.planted import Learner, Peek, PlantedJudge, Prefix


@pytest.fixture
def registered() -> Iterator[None]:
    """The attacks of these tests can be asked for by their names."""
    for made in (Prefix, Learner, Peek):
        ATTACKS.register(f"test-{made.__name__.lower()}")(made)
    yield
    for made in (Prefix, Learner, Peek):
        del ATTACKS.loaded[f"test-{made.__name__.lower()}"]


@pytest.fixture
def session(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The planted model and its judge, with an empty store."""
    made = Session(cast(Any, None), "cpu", "float32", Store(tmp_path / "store"))
    made.model = planted_model()
    monkeypatch.setattr(Session, "judge", lambda self, name, label="": PlantedJudge())
    return made
