"""What attacks find is written and read back as it was, and counted as it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from erasebench.adversarial import AdversarialPrompt, Found, Trial, read_trial, write_trial

HARD = AdversarialPrompt("zebra a church", (6, 4, 5, 7), (6, 4, 5, 7), 12)
TRIAL = Trial(
    id="a church",
    text="a church",
    seed=2**62,
    kind="naming",
    found=Found(HARD, 3, 40, (0.5, 0.25), 1e-3, "a note, with ü"),
    score=0.75,
    confirmations=(0.1, 0.5, 0.9),
    threshold=0.5,
    looks=7,
    passes=900,
)


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_trial(tmp_path, TRIAL)
    assert read_trial(tmp_path) == TRIAL


@pytest.mark.parametrize("name", ["vectors", "embedding"])
def test_embeddings_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    soft = replace(HARD, slots=(1, 2, 3), **{name: array})  # type: ignore[arg-type]
    write_trial(tmp_path, replace(TRIAL, found=replace(TRIAL.found, prompt=soft)))
    read = read_trial(tmp_path).found.prompt
    assert np.array_equal(getattr(read, name), array) and read.slots == (1, 2, 3)
    assert not read.is_text and HARD.is_text


@pytest.mark.parametrize(
    ("score", "confirmations", "raw", "confirmed"),
    [
        (0.5, (0.5, 0.5, 0.49), True, True),
        (0.5, (0.5, 0.49, 0.49), True, False),
        (0.49, (), False, False),
        (0.49, (0.9, 0.9, 0.9), False, False),
        (0.9, (), True, False),
    ],
)
def test_a_success_is_confirmed_by_two_fresh_seeds_of_three(
    score: float, confirmations: tuple[float, ...], raw: bool, confirmed: bool
) -> None:
    trial = replace(TRIAL, score=score, confirmations=confirmations)
    assert (trial.raw, trial.confirmed) == (raw, confirmed)


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_trial(tmp_path, replace(TRIAL, score=float("nan")))
