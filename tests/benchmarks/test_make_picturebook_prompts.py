"""The committed prompts are those of the script, which takes them from scenes that no training has seen."""

from __future__ import annotations

from benchmarks.make_picturebook_prompts import (
    FIRST_SEED,
    FOLDER,
    SEEDS_PER_CONCEPT,
    documents,
)
from erasebench.picturebook.training.data import HELD_OUT_SEED
from erasebench.picturebook.world.scene import LABELS
from erasebench.picturebook.world.styles import STYLES


def test_committed_prompts_are_what_the_script_writes() -> None:
    for name, text in documents().items():
        assert (FOLDER / name).read_bytes() == text.encode(), "run benchmarks/make_picturebook_prompts.py"


def test_prompts_are_of_scenes_that_no_training_and_no_measurement_has() -> None:
    last = FIRST_SEED + (len(LABELS) + len(STYLES) + 1) * SEEDS_PER_CONCEPT
    assert HELD_OUT_SEED + 1_000_000 < FIRST_SEED < last < 2**32
