"""Renders and token ids: the same from a cache, and from however many workers."""

from __future__ import annotations

import operator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from erasebench.picturebook.tokenizer import save_tokenizer
from erasebench.picturebook.training.data import (
    BLOCK,
    Renders,
    _in_blocks,
    cached_renders,
    caption_ids,
    join,
    render_many,
)
from erasebench.picturebook.world.scene import render, sample_scene


@pytest.fixture(scope="module")
def renders() -> Renders:
    return render_many(0, 300, workers=1)


def check_same(renders: Renders, other: Renders) -> None:
    """The other renders are the first of some."""
    assert np.array_equal(renders.images[: len(other)], other.images)
    assert np.array_equal(renders.instances[: len(other)], other.instances)


@pytest.mark.slow
def test_renders_do_not_depend_on_the_cache(renders: Renders, tmp_path: Path) -> None:
    for _ in range(2):
        check_same(renders, cached_renders(tmp_path, 0, 40))
    assert not list(tmp_path.glob("*.partial"))
    assert renders.scenes(workers=1) == [sample_scene(index) for index in range(300)]


def test_blocks_come_in_order_from_however_many_workers() -> None:
    """Of numbers, which processes add sooner than they would have loaded what renders."""
    for workers in (1, 2):
        assert _in_blocks(partial(operator.add, 5), 2 * BLOCK + 1, workers) == [5, 5 + BLOCK, 5 + 2 * BLOCK]


@pytest.mark.slow
def test_renders_do_not_depend_on_workers(renders: Renders) -> None:
    two = render_many(0, 300, workers=2)
    check_same(renders, two)
    assert two.scenes(workers=2) == renders.scenes(workers=1)


def test_extra_people_join_the_scenes_before_them(tmp_path: Path) -> None:
    scenes, people = render_many(0, 40, workers=1), cached_renders(tmp_path, 40, 12, people=12)
    both = join(scenes, people)
    assert [s.label for i in range(40, 52) for s in both.scene(i).subjects] == ["person"] * 12
    assert both.scene(7) == scenes.scene(7)
    for i in (39, 40, 51):
        assert np.array_equal(render(both.scene(i)).image, both.images[i])
    # The same seeds without extra people are kept apart in the cache.
    assert [cached_renders(tmp_path, 40, 12).scene(i) for i in range(12)] == [sample_scene(40 + i) for i in range(12)]
    with pytest.raises(ValueError, match="follow on"):
        join(scenes, render_many(41, 12, workers=1, people=12))


@pytest.mark.slow
def test_token_ids_of_captions_do_not_depend_on_workers(
    tokenizer: CLIPTokenizer, unrendered: Renders, ids: Tensor, tmp_path: Path
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    assert np.array_equal(caption_ids(unrendered, tmp_path, 3, workers=2), ids)


def test_token_ids_are_those_of_the_captions(tokenizer: CLIPTokenizer, unrendered: Renders, ids: Tensor) -> None:
    """They are made in two blocks."""
    texts = [unrendered.captions(np.arange(300), epoch) for epoch in range(3)]
    for epoch, captions in enumerate(texts):
        expected = tokenizer(captions, padding="max_length", truncation=True, return_tensors="np").input_ids
        assert np.array_equal(ids[:-1, epoch], expected)
    assert (ids[-1] == torch.tensor(tokenizer("", padding="max_length").input_ids)).all()
