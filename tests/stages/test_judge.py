from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.images import write_images
from erasebench.judges.picturebook import PicturebookClip
from erasebench.judging import Images, Scores, read_column
from erasebench.models.loading import ModelSource
from erasebench.plugins import PairedJudge
from erasebench.stages import judge
from erasebench.stages.session import Session

IMAGES = Cell("generate", {"of": "an erased model"}, title="uce church", units=3)
ORIGINALS = Cell("generate", {"of": "the unerased one"}, title="sd church", units=4)
BEFORE = {("b", 1): 90, ("a", 0): 40, ("b", 0): 60, ("c", 0): 0}
AFTER = {("a", 0): 10, ("b", 0): 20, ("b", 1): 30}


class Darkening(PairedJudge):
    """By how much each first pixel is darker."""

    labels = ("distance",)

    def identity(self) -> dict[str, str]:
        return {"version": "1"}

    def compare(self, images: Images, originals: Images) -> Scores:
        first, before = (one[:, 0, 0, 0].astype(np.float32) for one in (images, originals))
        return Scores({"distance": before - first})


SPEC = judge.judge_spec("darkening", "", Darkening())
CELL = judge.cell(SPEC, IMAGES, ORIGINALS)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """With a judge that compares, and a store of the erased model's images."""
    source = ModelSource("somewhere", tmp_path, "photo", "", 50, 7.5)
    made = Session(source, "cpu", "float32", Store(tmp_path / "store"))
    made._judges["darkening", ""] = Darkening()
    draw(made, IMAGES, AFTER)
    return made


def draw(session: Session, cell: Cell, values: Mapping[tuple[str, int], int]) -> None:
    """Commit gray images of these prompts and seeds."""
    images = np.stack([np.full((2, 2, 3), value, dtype=np.uint8) for value in values.values()])
    ids, seeds = zip(*values, strict=True)
    with session.store.writing(cell, {}) as folder:
        write_images(folder, images, ids, [f"text of {one}" for one in ids], seeds)


def test_each_image_is_compared_with_that_of_its_prompt_and_seed(session: Session, tmp_path: Path) -> None:
    draw(session, ORIGINALS, BEFORE)
    assert judge.run(CELL, session, tmp_path) == {"images": 3}
    assert read_column(tmp_path, "distance") == {("a", 0): 30, ("b", 0): 40, ("b", 1): 60}


def test_an_image_without_an_original_is_an_error(session: Session, tmp_path: Path) -> None:
    draw(session, ORIGINALS, {key: value for key, value in BEFORE.items() if key != ("b", 1)})
    with pytest.raises(
        EraseBenchError, match=r"no image to compare with for 1 of 3 images, such as that of the prompt 'b' with seed 1"
    ):
        judge.run(CELL, session, tmp_path)


def test_only_a_judge_that_compares_reads_the_originals() -> None:
    assert SPEC == {"judge": "darkening", "label": "", "paired": True, "version": "1"}
    assert CELL.reads == {"images": IMAGES, "originals": ORIGINALS} and CELL.units == 3
    alone = judge.judge_spec("picturebook-clip", "", PicturebookClip())
    assert "paired" not in alone
    assert judge.cell(alone, IMAGES, ORIGINALS).key == judge.cell(alone, IMAGES).key != CELL.key


def test_a_judge_that_compares_refuses_images_alone() -> None:
    with pytest.raises(EraseBenchError, match="the judge darkening compares images with those of the unerased model"):
        judge.cell(SPEC, IMAGES)


def test_other_judges_see_prompts(session: Session, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Listening(PicturebookClip):
        def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
            seen.append(list(prompts))
            return Scores({"clip": np.ones(len(images), dtype=np.float32)})

    session._judges["picturebook-clip", ""] = Listening()
    told: list[tuple[int, int, str]] = []
    session.progress = lambda *how_far: told.append(how_far)
    session.batch_sizes.judged.rows = 2
    judge.run(judge.cell(judge.judge_spec("picturebook-clip", "", PicturebookClip()), IMAGES), session, tmp_path)
    assert told == [(2, 3, "images"), (3, 3, "images")]
    seen = [[text for batch in seen for text in batch]]
    assert seen == [["text of a", "text of b", "text of b"]]
    assert list(read_column(tmp_path, "clip").values()) == [1, 1, 1]


def test_scores_that_are_not_finite_are_an_error(session: Session, tmp_path: Path) -> None:
    class Lost(Darkening):
        def compare(self, images: Images, originals: Images) -> Scores:
            return Scores({"distance": np.full(len(images), np.nan, dtype=np.float32)})

    session._judges["darkening", ""] = Lost()
    draw(session, ORIGINALS, BEFORE)
    with pytest.raises(FloatingPointError, match="darkening gave scores that are not finite for distance"):
        judge.run(CELL, session, tmp_path)
