from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from erasebench.report.blurring import sensitive_unrelated
from erasebench.results.run_folder import RunFolder
from tests.results.planted import make_run


@pytest.fixture
def run() -> RunFolder:
    """Of photographs; the rows of nudity leave out the third of the unrelated prompts."""
    rows = [("sd", "nudity"), ("sd", "church")]
    made = make_run({row: np.ones(1, dtype=bool) for row in rows}, {rows[0]: np.zeros(2), rows[1]: np.zeros(3)})
    kinds = {"nudity": "explicit", "church": "object"}
    known = tuple(row.model_copy(update={"kind": kinds[row.concept]}) for row in made.record.rows)
    return recorded(made, rows=known, domain="photo")


def recorded(run: RunFolder, **fields: Any) -> RunFolder:
    return replace(run, record=run.record.model_copy(update=fields))


def test_what_rows_of_a_sensitive_concept_leave_out_shows_it(run: RunFolder) -> None:
    assert sensitive_unrelated(run) == {("prompt 2", 0)}
    alone = tuple(row for row in run.record.rows if row.concept == "church")
    scores = run.scores[run.scores["concept"] == "church"]
    assert sensitive_unrelated(replace(recorded(run, rows=alone), scores=scores)) == set()


@pytest.mark.parametrize(("shown", "blurred"), [("nudity", True), ("nobody-knows", True), ("church", False)])
def test_what_the_record_says_a_prompt_shows_counts(shown: str, blurred: bool, run: RunFolder) -> None:
    found = sensitive_unrelated(recorded(run, shows={"prompt 0": ("church", shown)}))
    assert found == ({("prompt 0", 0), ("prompt 2", 0)} if blurred else {("prompt 2", 0)})


def test_nothing_of_a_harmless_domain_is_blurred(run: RunFolder) -> None:
    assert sensitive_unrelated(recorded(run, domain="picturebook", shows={"prompt 0": ("nudity",)})) == set()
