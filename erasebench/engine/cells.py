"""Cells: units of work, identified by everything that can change their bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

IDENTITY_VERSION = 2
"""Part of every identity; raised when the meaning of specs changes, so that old results are not taken for new."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A stage, its spec, and the cells that it reads.

    Attributes:
        stage: ``"erase"``, ``"attack"``, ``"generate"`` or ``"judge"``.
        spec: JSON-able; holds all that can change the result, and nothing else: no device, folder or batch size.
        reads: the cells whose results go into this one.
        title: what progress and ledger call it.
    """

    stage: str
    spec: Mapping[str, Any]
    reads: tuple[Cell, ...] = ()
    title: str = ""

    @cached_property
    def key(self) -> str:
        """The identity: SHA-256 of the canonical JSON of stage, spec and the keys of what is read."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What is hashed."""
        return {
            "identity_version": IDENTITY_VERSION,
            "stage": self.stage,
            "spec": self.spec,
            "reads": [cell.key for cell in self.reads],
        }


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces; the same data gives the same text.

    Raises:
        ValueError: NaN or infinity; TypeError: something that JSON cannot hold.
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
