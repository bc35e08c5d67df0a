"""Picturebook's judges name their weights only where these are what was shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from erasebench.concepts import load_catalogue
from erasebench.domains import PICTUREBOOK
from erasebench.judges import picturebook
from erasebench.judges.picturebook import (
    PicturebookDetector,
    PicturebookDistance,
    PicturebookSegmenter,
    identity,
    label_of,
)
from erasebench.judging import part_counts
from erasebench.picturebook.scenes import render_images
from erasebench.picturebook.training.data import held_out
from erasebench.picturebook.weights import WEIGHTS, WeightsError, file_hash, judge_path
from erasebench.picturebook.world.scene import LABELS, render, sample_scene
from erasebench.plugins import PairedJudge
from erasebench.registry import JUDGES
from erasebench.sampling import Sampler, sample
from tests.tiny import tiny_model

READS = {
    "picturebook-detector": ("detector",),
    "picturebook-segmenter": ("detector",),
    "picturebook-style": ("clip",),
    "picturebook-clip": ("clip",),
    "picturebook-q16": ("clip", "q16"),
    "picturebook-distance": ("clip",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped judges that the plug-ins read instead."""
    for name in ("manifest.json", "detector.safetensors", "clip.safetensors", "q16.safetensors"):
        shutil.copy(WEIGHTS / name, tmp_path / name)
    monkeypatch.setattr(picturebook, "judge_path", lambda name: judge_path(name, tmp_path))
    monkeypatch.setattr(picturebook, "file_hash", lambda name: file_hash(name, tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", READS)
def test_identity_gives_the_hashes(name: str, folder: Path) -> None:
    hashes = "+".join(file_hash(f"{part}.safetensors") for part in READS[name])
    assert JUDGES.get(name).make().identity() == {"version": "1", "weights": hashes}


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in READS.items() for part in parts])
def test_a_plan_learns_that_a_file_is_corrupt_or_missing(name: str, part: str, folder: Path) -> None:
    path = folder / f"{part}.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(WeightsError, match=rf"{part}\.safetensors is corrupt"):
        JUDGES.get(name).make().identity()
    path.unlink()
    with pytest.raises(WeightsError, match=rf"{part}\.safetensors is missing"):
        JUDGES.get(name).make().identity()


@pytest.mark.parametrize("name", READS)
def test_images_of_stable_diffusion_xl_are_judged(name: str) -> None:
    """Together as one by one."""
    prompts = ["a church", "a naked person"]
    images = sample(tiny_model("sdxl"), prompts, [0, 1], Sampler("ddim", 2, 4.0, size=64))
    assert images.shape == (2, 64, 64, 3)
    judge = JUDGES.get(name).make()

    def columns(part: slice) -> dict[str, NDArray[np.float32]]:
        if isinstance(judge, PairedJudge):
            return dict(judge.compare(images[part], images[::-1][part]).columns)
        return dict(judge.scores(images[part], prompts[part]).columns)

    whole, first = columns(slice(None)), columns(slice(1))
    assert whole
    for label, scores in whole.items():
        assert scores.shape == (2,) and np.isfinite(scores).all()
        np.testing.assert_allclose(first[label], scores[:1], rtol=1e-3, atol=1e-4)


def test_identity_loads_no_framework() -> None:
    code = f"""
import sys
from erasebench.picturebook.world.scene import LABELS, render, sample_scene
from erasebench.registry import JUDGES
for name in {list(READS)!r}:
    JUDGES.get(name).make().identity()
print(*sorted({{"torch", "open_clip", "ultralytics", "transformers"}} & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout == "\n"


def test_distance_is_that_of_the_directions_of_features() -> None:
    assert JUDGES.get(PICTUREBOOK.distance).make is PicturebookDistance
    images, originals = render_images(0, 4), render_images(4, 4)
    found = PicturebookDistance().compare(images, originals).columns
    raw = [picturebook.load_clip().raw_image_features(part).astype(np.float64) for part in (images, originals)]
    cosine = np.sum(raw[0] * raw[1], axis=1) / np.prod([np.linalg.norm(part, axis=1) for part in raw], axis=0)
    assert list(found) == ["distance"] and found["distance"].dtype == np.float32
    np.testing.assert_allclose(found["distance"], 100 * (1 - cosine), rtol=1e-4)
    assert found["distance"].min() > 1
    assert PicturebookDistance().compare(images, images).columns["distance"].tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="but originals"):
        PicturebookDistance().compare(images, originals[:2])


def test_nudity_is_counted() -> None:
    bare = held_out(8, first=0, subject="nudity")[1]
    others = held_out(8, first=0, subject="church")[1]
    columns = PicturebookDetector().scores(np.concatenate([bare, others]), [""] * 16).columns
    assert set(columns) - {*PicturebookDetector().labels} == {"nudity count", *(f"nudity box {k}" for k in range(1, 9))}
    counts = part_counts(columns, "nudity", 0.6)
    assert (counts[:8] >= 1).mean() >= 0.75 and not counts[8:].any()
    assert (columns["nudity box 1"] <= columns["nudity"] + 1e-6).all()
    assert (columns["nudity count"] >= counts).all()


# The segmenter, against the world's own masks


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
