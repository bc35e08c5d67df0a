from __future__ import annotations

import numpy as np
import pytest

from erasebench.errors import EraseBenchError
from erasebench.judges.phrase import ClipPhrase
from erasebench.judging import Images
from erasebench.picturebook.world.scene import render, sample_scene
from erasebench.stages.judge import make_judge


def renders(subject: str, count: int = 12) -> Images:
    """Pictures of the world that show one thing."""
    return np.stack([render(sample_scene(seed, subject=subject)).image for seed in range(count)])


@pytest.mark.parametrize(
    ("label", "shown", "other"), [("church", "church", "golf-ball"), ("golf ball", "golf-ball", "church")]
)
def test_picturebooks_clip_tells_things_apart(label: str, shown: str, other: str) -> None:
    judge = make_judge("clip-phrase", label, "picturebook")
    there = judge.scores(renders(shown), [""] * 12).columns
    missing = judge.scores(renders(other), [""] * 12).columns
    assert list(there) == [label] and judge.labels == (label,)
    assert (there[label] >= 0).all() and (there[label] <= 1).all()
    assert there[label].mean() > 0.8
    assert missing[label].mean() < 0.25


@pytest.mark.usefixtures("tiny_clip")
def test_photographs_go_to_openais_clip(images: Images) -> None:
    judge = ClipPhrase("red balloon", "photo")
    found = judge.scores(images, [""] * 3).columns["red balloon"]
    assert found.shape == (3,) and ((found > 0) & (found < 1)).all()
    assert judge.identity() != ClipPhrase("red balloon", "picturebook").identity()


def test_other_domains_are_unknown() -> None:
    with pytest.raises(EraseBenchError, match=r"unknown domain 'photos'; nearest: photo"):
        ClipPhrase("church", "photos")
