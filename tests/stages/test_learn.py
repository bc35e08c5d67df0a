"""What an attack learns once for all prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from erasebench.engine.cells import Cell
from erasebench.images import write_images
from erasebench.judging import Images, Scores, write_scores
from erasebench.plugins import AttackContext
from erasebench.registry import ATTACKS
from erasebench.stages import attack, learn
from erasebench.stages.session import Session
from erasebench.training.target import Target
from tests.attacks.planted import brightness
from tests.stages.planted import Learner, aim, erasure_cell, prompts, run, trial


def test_what_is_learnt_comes_from_the_clearest_images_and_reaches_every_prompt(session: Session) -> None:
    erased = erasure_cell(session)
    images, judged = Cell("generate", {"of": "church"}), Cell("judge", {"of": "church"})
    pixels = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (50, 200, 100)])
    ids = ["a", "b", "c"]
    with session.store.writing(images, {}) as folder:
        write_images(folder, pixels, ids, ids, [0, 0, 0])
    with session.store.writing(judged, {}) as folder:
        write_scores(folder, Scores({"church": brightness(pixels)}), ids, [0, 0, 0])
    for source, order in ((judged, (200, 100, 50)), (None, (50, 200, 100))):
        learned = learn.cell(aim(erased, Learner()), images, source)
        with session.store.writing(learned, {}) as folder:
            learn.run(learned, session, folder)
        cell = attack.cell(aim(erased, Learner()), prompts()[0], {"learned": learned})
        run(session, [cell])
        assert trial(session, cell).found.losses == pytest.approx(order)


def test_an_attack_that_learns_no_numbers_fails(session: Session, tmp_path: Path) -> None:
    class Lost(Learner):
        def learn(self, target: Target, images: Images, context: AttackContext) -> dict[str, Tensor]:
            return {"vectors": torch.tensor([float("nan")])}

    ATTACKS.loaded["test-learner"] = replace(ATTACKS.loaded["test-learner"], make=Lost)
    images = Cell("generate", {})
    with session.store.writing(images, {}) as folder:
        write_images(folder, np.zeros((1, 8, 8, 3), np.uint8), ["a"], ["a"], [0])
    with pytest.raises(FloatingPointError, match="not finite: vectors"):
        learn.run(learn.cell(aim(erasure_cell(session), Learner()), images, None), session, tmp_path)
