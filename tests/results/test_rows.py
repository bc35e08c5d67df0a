"""A row of the table of results."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import get_args

import pytest

from erasebench.metrics.stats import Estimate
from erasebench.results.record import RowRecord
from erasebench.results.rows import STATUSES, Status, TableRow


def test_a_row_of_which_no_more_is_known_has_no_number_no_flag_and_no_attack() -> None:
    row = TableRow("uce", "church", "failed", "diverged")
    assert not (row.metrics or row.flags or row.notes or row.attack or row.judge)
    assert row.metrics is not TableRow("uce", "church", "ok").metrics, "rows share no dictionary"


def test_rows_are_what_they_say() -> None:
    row = TableRow("uce", "church", "ok", metrics={"ratio": Estimate(7.5, 2.5, 19.9, 40)})
    assert row == replace(row, metrics=dict(row.metrics)) != replace(row, attack="rab")
    with pytest.raises(FrozenInstanceError):
        row.status = "failed"  # type: ignore[misc]


def test_the_record_of_a_run_knows_the_same_states() -> None:
    assert STATUSES == get_args(Status) == ("ok", "failed", "n/a")
    for status in STATUSES:
        assert RowRecord(method="uce", concept="church", kind="object", status=status).status == status
