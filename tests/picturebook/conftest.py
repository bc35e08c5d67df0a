"""Scenes, pictures and networks that several files look at, made once in each process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPTokenizer

from erasebench.picturebook.judges.clip import Clip, build_clip
from erasebench.picturebook.tokenizer import train_tokenizer
from erasebench.picturebook.training.data import Renders, render_many


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """A few pictures of the world."""
    return render_many(0, 5, workers=1).images


@pytest.fixture(scope="session")
def unrendered() -> Renders:
    """Scenes whose pictures are black: captions do not need them."""
    return Renders(0, np.zeros((300, 64, 64, 3), np.uint8), np.zeros((300, 64, 64), np.uint8))


@pytest.fixture(scope="session")
def tokenizer(unrendered: Renders) -> CLIPTokenizer:
    return train_tokenizer(unrendered.captions(np.arange(300), epoch=0))


@pytest.fixture(scope="session")
def clip(unrendered: Renders) -> Clip:
    """Random weights."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(unrendered.captions(range(160), epoch=0), merges=200)
    return Clip(build_clip(len(tokenizer)), tokenizer)
