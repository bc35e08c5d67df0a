"""Picturebook's segmenter against the world's own masks."""

from __future__ import annotations

import numpy as np
import pytest

from erasebench.concepts import load_catalogue
from erasebench.judges.picturebook import PicturebookSegmenter, identity, label_of
from erasebench.picturebook.world.scene import LABELS, render, sample_scene
from erasebench.registry import JUDGES


@pytest.mark.parametrize("label", LABELS)
def test_phrases_of_the_catalogue_name_their_labels(label: str) -> None:
    concept = load_catalogue().get(label)
    assert label_of(concept.phrase) == label
    assert label_of(f"a drawing of {concept.phrase}, at night") == label


@pytest.mark.parametrize(
    ("phrase", "label"),
    [
        ("cathedral", "church"),
        ("A Naked Person", "nudity"),
        ("naked person", "nudity"),
        ("person", "person"),
        ("a clothed person", "person"),
        ("brawl", "violence"),
        ("Paul Marshall", None),
        ("churchyard", None),
        ("Van Gogh", None),
        ("", None),
    ],
)
def test_phrases(phrase: str, label: str | None) -> None:
    assert label_of(phrase) == label


def test_masks_are_where_the_world_drew_the_subject() -> None:
    asked = ["church", "Paul Marsh", "nudity"]
    scenes = [render(sample_scene(3, subject=label)) for label in ("church", "paul-marsh", "nudity")]
    images = np.stack([scene.image for scene in scenes])
    judge = JUDGES.get("picturebook-segmenter").make()
    assert isinstance(judge, PicturebookSegmenter)
    scores = judge.scores(images, asked)
    masks = scores.arrays["mask"]
    assert masks.shape == (3, 64, 64) and masks.dtype == np.float32
    assert set(np.unique(masks)) == {0.0, 1.0}
    for mask, scene in zip(masks > 0, scenes, strict=True):
        truth = scene.masks[0]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.6
    assert scores.columns["area"] == pytest.approx(masks.mean((1, 2)))
    others = judge.scores(images, ["tench", "Van Gogh", "a red balloon"]).arrays["mask"]
    assert not others.any()
    assert judge.identity() == identity("detector")
