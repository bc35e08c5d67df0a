"""The detector, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from erasebench.judging import Images
from erasebench.picturebook.judges.detector import Detector, build_detector, prepare_images
from erasebench.picturebook.world.scene import LABELS


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(build_detector())


def test_images_of_another_type_or_size_are_refused(images: Images) -> None:
    wrong: Any
    for wrong in (images.astype(np.float32), images[:, :32], images[0], np.moveaxis(images, 3, 1)):
        with pytest.raises(ValueError, match=r"\[n, 64, 64, 3\]"):
            prepare_images(wrong)
    pixels = prepare_images(images)
    assert pixels.shape == (5, 3, 64, 64)
    assert pixels[2, 1, 10, 20] == pytest.approx(images[2, 10, 20, 1] / 255)


def test_detector_scores_are_the_highest_confidences(detector: Detector, images: Images) -> None:
    scores = detector.scores(images)
    assert scores.shape == (5, len(LABELS)) and scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    for name, row in zip(detector.top1(images, threshold=0), scores, strict=True):
        assert name == LABELS[int(row.argmax())]
    assert detector.top1(images, threshold=1.01) == ["none"] * 5
    assert detector.scores(images[:0]).shape == (0, len(LABELS))
    assert detector.detect(images[:0]) == []
    assert detector.detect(images, threshold=1.01) == [()] * 5


def test_detector_does_not_depend_on_batching(detector: Detector, images: Images) -> None:
    many = np.concatenate([images] * 14)
    np.testing.assert_allclose(detector.scores(many)[65:], detector.scores(images), rtol=1e-4, atol=1e-6)


def test_masks_are_the_union_of_the_instances_and_lie_in_their_boxes(detector: Detector, images: Images) -> None:
    threshold = float(detector.scores(images).max(axis=1).min())
    found = detector.detect(images, threshold)
    assert all(found)
    for label in {d.label for detections in found for d in detections}:
        for mask, detections in zip(detector.masks(images, label, threshold), found, strict=True):
            parts = [d.mask for d in detections if d.label == label]
            np.testing.assert_array_equal(mask, np.any([np.zeros((64, 64), bool), *parts], axis=0))
    for detection in (d for detections in found for d in detections):
        rows, columns = np.nonzero(detection.mask)
        x0, y0, x1, y1 = detection.box
        if rows.size:
            assert x0 <= columns.min() + 0.5 and columns.max() + 0.5 <= x1
            assert y0 <= rows.min() + 0.5 and rows.max() + 0.5 <= y1


def test_boxes_of_a_label_are_its_instances(detector: Detector, images: Images) -> None:
    threshold = float(np.median(detector.scores(images).max(axis=1)))
    found = detector.detect(images, threshold)
    labels = {detection.label for detections in found for detection in detections}
    assert labels and len(labels) < len(LABELS)
    for label in (*labels, next(label for label in LABELS if label not in labels)):
        scores, boxes = detector.scores_and_boxes(images, label, threshold)
        np.testing.assert_array_equal(scores, detector.scores(images))
        assert boxes == [[one.score for one in detections if one.label == label] for detections in found]
    scores, boxes = detector.scores_and_boxes(images[:0], "nudity")
    assert scores.shape == (0, len(LABELS)) and boxes == []
