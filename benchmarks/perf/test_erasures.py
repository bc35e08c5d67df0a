"""How long every method erases one concept of Picturebook, with the settings of the ``quick`` preset.

Bars, on two cores: three minutes for Dark Miner, two for any other.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.perf.conftest import Show
from erasebench.config import make_config
from erasebench.erasures import ABOUT, erase
from erasebench.registry import METHODS

CONCEPT = "church"
LIMITS = {name: 120.0 for name in METHODS.names() if name not in ("sd", "checkpoint")} | {"dm2": 180.0}


@pytest.mark.parametrize("method", LIMITS)
def test_an_erasure(method: str, benchmark: Any, tmp_path: Path, show: Show) -> None:
    """One erasure, without loading the model, as ``erase.yaml`` has it."""
    config = make_config({"methods": [method], "concepts": [CONCEPT], "device": "cpu", "out": tmp_path / "out"})
    benchmark.pedantic(erase, args=(config, "none", io.StringIO()), rounds=1)
    seconds: float = yaml.safe_load((tmp_path / "out" / ABOUT).read_text())["seconds"]
    benchmark.extra_info.update(seconds=seconds, threads=torch.get_num_threads())
    show(
        f"{method}, {CONCEPT}, {torch.get_num_threads()} threads", {"seconds": f"{seconds:.1f} of {LIMITS[method]:.0f}"}
    )
    if torch.get_num_threads() >= 2:
        assert seconds <= LIMITS[method]
