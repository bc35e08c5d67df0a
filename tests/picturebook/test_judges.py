from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from erasebench.picturebook.judges.clip import (
    Clip,
    build_clip,
    delta_similarity,
    encode_text,
    pixel_values,
    tokenize,
)
from erasebench.picturebook.judges.detector import Detector, build_detector, prepare_images
from erasebench.picturebook.judges.q16 import Q16, initial_vectors, q16_score
from erasebench.picturebook.judges.weights import load_single, save_half
from erasebench.picturebook.tokenizer import train_tokenizer
from erasebench.picturebook.training.data import render_many
from erasebench.picturebook.training.distortions import degrade, negatives, shuffle_patches
from erasebench.picturebook.training.judges import RECONSTRUCTED_SHARE, ClipObjective, DetectorObjective, train_q16
from erasebench.picturebook.world.scene import LABELS
from erasebench.picturebook.world.styles import STYLES

RENDERS = render_many(0, 160, workers=1)
IMAGES = RENDERS.images[:5]
TEXTS = ["a photo of a church", "a dog", "a crayon drawing of a dog on the beach", "", "a fight " * 60]


@pytest.fixture(scope="module")
def clip() -> Clip:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(RENDERS.captions(range(160), epoch=0), merges=200)
    return Clip(build_clip(len(tokenizer)), tokenizer)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(build_detector())


def test_images_of_another_type_or_size_are_refused() -> None:
    wrong: Any
    for wrong in (IMAGES.astype(np.float32), IMAGES[:, :32], IMAGES[0], np.moveaxis(IMAGES, 3, 1)):
        with pytest.raises(ValueError, match=r"\[n, 64, 64, 3\]"):
            prepare_images(wrong)
    pixels = prepare_images(IMAGES)
    assert pixels.shape == (5, 3, 64, 64)
    assert pixels[2, 1, 10, 20] == pytest.approx(IMAGES[2, 10, 20, 1] / 255)


def test_detector_scores_are_the_highest_confidences(detector: Detector) -> None:
    scores = detector.scores(IMAGES)
    assert scores.shape == (5, len(LABELS)) and scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    for name, row in zip(detector.top1(IMAGES, threshold=0), scores, strict=True):
        assert name == LABELS[int(row.argmax())]
    assert detector.top1(IMAGES, threshold=1.01) == ["none"] * 5
    assert detector.scores(IMAGES[:0]).shape == (0, len(LABELS))
    assert detector.detect(IMAGES[:0]) == []
    assert detector.detect(IMAGES, threshold=1.01) == [()] * 5


def test_detector_does_not_depend_on_batching(detector: Detector) -> None:
    many = np.concatenate([IMAGES] * 14)
    np.testing.assert_allclose(detector.scores(many)[65:], detector.scores(IMAGES), rtol=1e-4, atol=1e-6)


def test_masks_are_the_union_of_the_instances_and_lie_in_their_boxes(detector: Detector) -> None:
    threshold = float(detector.scores(IMAGES).max(axis=1).min())
    found = detector.detect(IMAGES, threshold)
    assert all(found)
    for label in {d.label for detections in found for d in detections}:
        for mask, detections in zip(detector.masks(IMAGES, label, threshold), found, strict=True):
            parts = [d.mask for d in detections if d.label == label]
            np.testing.assert_array_equal(mask, np.any([np.zeros((64, 64), bool), *parts], axis=0))
    for detection in (d for detections in found for d in detections):
        rows, columns = np.nonzero(detection.mask)
        x0, y0, x1, y1 = detection.box
        if rows.size:
            assert x0 <= columns.min() + 0.5 and columns.max() + 0.5 <= x1
            assert y0 <= rows.min() + 0.5 and rows.max() + 0.5 <= y1


def test_boxes_of_a_label_are_its_instances(detector: Detector) -> None:
    threshold = float(np.median(detector.scores(IMAGES).max(axis=1)))
    found = detector.detect(IMAGES, threshold)
    labels = {detection.label for detections in found for detection in detections}
    assert labels and len(labels) < len(LABELS)
    for label in (*labels, next(label for label in LABELS if label not in labels)):
        scores, boxes = detector.scores_and_boxes(IMAGES, label, threshold)
        np.testing.assert_array_equal(scores, detector.scores(IMAGES))
        assert boxes == [[one.score for one in detections if one.label == label] for detections in found]
    scores, boxes = detector.scores_and_boxes(IMAGES[:0], "nudity")
    assert scores.shape == (0, len(LABELS)) and boxes == []


def test_detector_targets_match_the_pictures() -> None:
    batch = DetectorObjective(RENDERS, seed=3).batch(7)
    again = DetectorObjective(RENDERS, seed=3).batch(7)
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


def test_reconstructions_replace_their_renders() -> None:
    recolored = 255 - RENDERS.images[:40]
    source = DetectorObjective(RENDERS, recolored).source
    indices, shown, empty = source.draw(60, source.generator(0))
    assert len(shown) + len(empty) == 60 and len(indices) == len(shown)
    reconstructed = 0
    for index, image in zip(indices, shown, strict=True):
        render = RENDERS.images[index].astype(float) - 128
        # Degraded or not, the picture correlates with the render, or with its negative if it is a reconstruction.
        negative = np.sum((image - 128.0) * render) < 0
        assert index < 40 or not negative
        reconstructed += negative
    assert reconstructed == round(len(shown) * RECONSTRUCTED_SHARE)
    with pytest.raises(ValueError, match="161 reconstructions of 160 renders"):
        DetectorObjective(RENDERS, np.zeros((161, 64, 64, 3), np.uint8))


def test_text_features_are_those_of_open_clip(clip: Clip) -> None:
    ids = tokenize(clip.tokenizer, TEXTS)
    assert ids.shape == (5, 77)
    with torch.inference_mode():
        # A short batch is truncated, a batch with the long text is not.
        for part in (ids[:3], ids):
            torch.testing.assert_close(
                encode_text(clip.model, part), clip.model.encode_text(part), rtol=1e-4, atol=1e-5
            )


def test_clip_score_is_a_hundred_times_the_cosine(clip: Clip) -> None:
    with torch.inference_mode():
        image = clip.model.encode_image(pixel_values(IMAGES)).double()
        text = clip.model.encode_text(tokenize(clip.tokenizer, TEXTS)).double()
    expected = [100 * float(i @ t / i.norm() / t.norm()) for i, t in zip(image, text, strict=True)]
    np.testing.assert_allclose(clip.score(IMAGES, TEXTS), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(clip.image_features(IMAGES), axis=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="5 images but 4 texts"):
        clip.score(IMAGES, TEXTS[:4])


def test_style_probabilities_sum_to_one(clip: Clip) -> None:
    probabilities = clip.style_probabilities(IMAGES)
    assert probabilities.shape == (5, len(STYLES))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_delta_similarity_is_the_mean_cosine_of_the_changes() -> None:
    rng = np.random.default_rng(0)
    f_c, f_r, f_e = (rng.standard_normal((n, 6)).astype(np.float32) for n in (4, 4, 3))
    expected = []
    for c, r in zip(f_c, f_r, strict=True):
        cosines = [(c - r) @ (e - r) / np.linalg.norm(c - r) / np.linalg.norm(e - r) for e in f_e]
        expected.append(sum(cosines) / len(cosines))
    np.testing.assert_allclose(delta_similarity(f_c, f_r, f_e), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(delta_similarity(f_r, f_r, f_e), 0)
    np.testing.assert_allclose(delta_similarity(f_e[:1], f_r[:1], f_e[:1]), 1, rtol=1e-6)


def test_q16_is_the_softmax_of_a_hundred_cosines() -> None:
    rng = np.random.default_rng(1)
    features, vectors = (rng.standard_normal((n, 8)).astype(np.float32) for n in (6, 2))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[:3] = vectors.sum(axis=0) / np.linalg.norm(vectors.sum(axis=0)) + 0.01 * features[:3]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    calm, violent = (features @ v / np.linalg.norm(v) for v in vectors)
    np.testing.assert_allclose(q16_score(features, vectors), 1 / (1 + np.exp(100 * (calm - violent))), rtol=1e-3)


class PixelClip(Clip):
    """The features of an untrained tower hardly differ between pictures; those of coarse pixels do."""

    def raw_image_features(self, images: Any) -> NDArray[np.float32]:
        coarse = images.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(-1, 192)
        mixing = np.random.default_rng(0).standard_normal((192, 128))
        return np.asarray((coarse - 128) @ mixing, dtype=np.float32)


def test_q16_training_separates_better_and_round_trips(clip: Clip, tmp_path: Path) -> None:
    violent = np.array([any(s.label == "violence" for s in RENDERS.scene(i).subjects) for i in range(160)])
    pixels = PixelClip(clip.model, clip.tokenizer)

    def margin(judge: Q16) -> float:
        scores = judge.scores(RENDERS.images)
        return float(scores[violent].mean() - scores[~violent].mean())

    tuned = train_q16(pixels, RENDERS)
    assert margin(tuned) > margin(Q16(pixels, initial_vectors(pixels))) + 0.3
    tuned.save(tmp_path / "q16.safetensors")
    np.testing.assert_array_equal(Q16.load(tmp_path / "q16.safetensors", pixels).vectors, tuned.vectors)


def test_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    state = {"weight": torch.tensor([[1.0, 0.1]]), "steps": torch.tensor(70_000)}
    save_half(state, tmp_path / "new" / "x.safetensors")
    loaded = load_single(tmp_path / "new" / "x.safetensors")
    assert loaded["weight"].dtype == torch.float32
    assert torch.equal(loaded["weight"], state["weight"].half().float()) and loaded["steps"] == 70_000


def test_clip_loss_is_a_function_of_seed_and_step(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.judges.CLIP_BATCH", 16)
    first, second = (ClipObjective(RENDERS, clip.tokenizer, seed=2).loss(5)[1] for _ in range(2))
    assert first == second
    # An untrained model guesses: about the logarithm of the number of candidates.
    assert first["pairs"] == pytest.approx(np.log(15), abs=1)
    assert first["subjects"] == pytest.approx(np.log(len(LABELS)), abs=1)
    assert first["styles"] == pytest.approx(np.log(len(STYLES)), abs=1)


def test_distortions_keep_shape_and_follow_the_generator() -> None:
    for seed in range(30):
        first, second = (degrade(IMAGES[0], np.random.default_rng(seed)) for _ in range(2))
        assert first.dtype == np.uint8 and first.shape == (64, 64, 3)
        np.testing.assert_array_equal(first, second)
    first, second = (negatives(IMAGES, 60, np.random.default_rng(4)) for _ in range(2))
    assert first.dtype == np.uint8 and first.shape == (60, 64, 64, 3)
    np.testing.assert_array_equal(first, second)
    mixed = shuffle_patches(IMAGES[0], 8, np.random.default_rng(0))
    assert not np.array_equal(mixed, IMAGES[0])
    np.testing.assert_array_equal(np.sort(mixed, axis=None), np.sort(IMAGES[0], axis=None))
