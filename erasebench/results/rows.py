"""The rows of the table of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from erasebench.metrics.stats import Estimate

Status = Literal["ok", "failed", "n/a"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class TableRow:
    """The results of one method on one concept, or of one attack on them.

    Attributes:
        method: as the user wrote it; ``concept`` the concept's name.
        status: whether the row could be measured; ``reason`` why not.
        metrics: by name, in display order.
        judge: who saw the concept, with version, weights and threshold.
        flags: names of :data:`~erasebench.results.flags.FLAGS`.
        notes: by metric, what its number depends on: "fid" names the features.
        attack: as the user wrote it; "" for the row of the model without any.
    """

    method: str
    concept: str
    status: Status
    reason: str = ""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    judge: str = ""
    flags: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    attack: str = ""
