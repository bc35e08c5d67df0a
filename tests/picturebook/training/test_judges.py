"""Training of the judges: batches with their targets, and judges that can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPTokenizer

from erasebench.errors import EraseBenchError
from erasebench.picturebook.judges.clip import Clip
from erasebench.picturebook.judges.detector import Detector
from erasebench.picturebook.judges.q16 import Q16, initial_vectors
from erasebench.picturebook.tokenizer import save_tokenizer
from erasebench.picturebook.training.data import Renders, render_many
from erasebench.picturebook.training.judges import (
    RECONSTRUCTED_SHARE,
    ClipObjective,
    DetectorObjective,
    train_judges,
    train_q16,
)
from erasebench.picturebook.training.loop import Recipe
from erasebench.picturebook.world.scene import LABELS
from erasebench.picturebook.world.styles import STYLES


@pytest.fixture(scope="module")
def renders() -> Renders:
    return render_many(0, 160, workers=1)


def test_detector_targets_match_the_pictures(renders: Renders) -> None:
    batch = DetectorObjective(renders, seed=3).batch(7)
    again = DetectorObjective(renders, seed=3).batch(7)
    assert all(torch.equal(batch[k], again[k]) for k in batch)
    size = batch["masks"].shape[-1]
    assert len(batch["cls"]) > 20
    numbers: dict[int, int] = {}
    for image, (x, y, w, h) in zip(batch["batch_idx"].int().tolist(), batch["bboxes"].tolist(), strict=True):
        numbers[image] = numbers.get(image, 0) + 1
        rows, columns = torch.nonzero(batch["masks"][image] == numbers[image], as_tuple=True)
        # The masks are sampled at every second pixel, so a box may reach one such pixel further.
        box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * size
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(box - seen).max() <= 1.01


def test_reconstructions_replace_their_renders(renders: Renders) -> None:
    recolored = 255 - renders.images[:40]
    source = DetectorObjective(renders, recolored).source
    indices, shown, empty = source.draw(60, source.generator(0))
    assert len(shown) + len(empty) == 60 and len(indices) == len(shown)
    reconstructed = 0
    for index, image in zip(indices, shown, strict=True):
        render = renders.images[index].astype(float) - 128
        # Degraded or not, the picture correlates with the render, or with its negative if it is a reconstruction.
        negative = np.sum((image - 128.0) * render) < 0
        assert index < 40 or not negative
        reconstructed += negative
    assert reconstructed == round(len(shown) * RECONSTRUCTED_SHARE)
    with pytest.raises(ValueError, match="161 reconstructions of 160 renders"):
        DetectorObjective(renders, np.zeros((161, 64, 64, 3), np.uint8))


class PixelClip(Clip):
    """The features of an untrained tower hardly differ between pictures; those of coarse pixels do."""

    def raw_image_features(self, images: Any) -> NDArray[np.float32]:
        coarse = images.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(-1, 192)
        mixing = np.random.default_rng(0).standard_normal((192, 128))
        return np.asarray((coarse - 128) @ mixing, dtype=np.float32)


def test_q16_training_separates_better_and_round_trips(clip: Clip, tmp_path: Path, renders: Renders) -> None:
    violent = np.array([any(s.label == "violence" for s in renders.scene(i).subjects) for i in range(160)])
    pixels = PixelClip(clip.model, clip.tokenizer)

    def margin(judge: Q16) -> float:
        scores = judge.scores(renders.images)
        return float(scores[violent].mean() - scores[~violent].mean())

    tuned = train_q16(pixels, renders)
    assert margin(tuned) > margin(Q16(pixels, initial_vectors(pixels))) + 0.3
    tuned.save(tmp_path / "q16.safetensors")
    np.testing.assert_array_equal(Q16.load(tmp_path / "q16.safetensors", pixels).vectors, tuned.vectors)


def test_clip_loss_is_a_function_of_seed_and_step(
    clip: Clip, monkeypatch: pytest.MonkeyPatch, renders: Renders
) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.judges.CLIP_BATCH", 16)
    first, second = (ClipObjective(renders, clip.tokenizer, seed=2).loss(5)[1] for _ in range(2))
    assert first == second
    # An untrained model guesses: about the logarithm of the number of candidates.
    assert first["pairs"] == pytest.approx(np.log(15), abs=1)
    assert first["subjects"] == pytest.approx(np.log(len(LABELS)), abs=1)
    assert first["styles"] == pytest.approx(np.log(len(STYLES)), abs=1)


def test_the_judges_stage_asks_for_the_tokenizer(tmp_path: Path, renders: Renders) -> None:
    with pytest.raises(EraseBenchError, match=r"tokenizer\.json is missing"):
        train_judges(renders, None, tmp_path, torch.device("cpu"), tmp_path / "out", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True], ids=["anew", "further"])
def test_the_judges_stage_ships_judges_that_load(
    twice: bool, tmp_path: Path, renders: Renders, tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = "erasebench.picturebook.training.judges."
    for name in ("DETECTOR_RECIPE", "CLIP_RECIPE"):
        monkeypatch.setattr(stage + name, Recipe(steps=2, learning_rate=1e-3))
    for name, small in {"DETECTOR_BATCH": 4, "CLIP_BATCH": 16, "Q16_IMAGES": 32, "Q16_STEPS": 20}.items():
        monkeypatch.setattr(stage + name, small)
    save_tokenizer(tokenizer, tmp_path / "pipeline" / "tokenizer")
    for further in (False, True)[: 1 + twice]:
        work = tmp_path / f"work-{further}"
        train_judges(renders, renders.images[:100], work, torch.device("cpu"), tmp_path, seed=0, further=further)
    clip = Clip.load(tmp_path / "clip.safetensors", tokenizer)
    scores = Detector.load(tmp_path / "detector.safetensors").scores(renders.images[:3])
    assert scores.shape == (3, len(LABELS))
    assert np.isfinite(scores).all()
    assert ((q16 := Q16.load(tmp_path / "q16.safetensors", clip).scores(renders.images[:3])) >= 0).all()
    assert (q16 <= 1).all()
