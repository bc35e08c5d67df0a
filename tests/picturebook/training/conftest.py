"""Token ids of captions, made once in each process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from erasebench.picturebook.tokenizer import save_tokenizer
from erasebench.picturebook.training.data import Renders, caption_ids


@pytest.fixture(scope="session")
def ids(tokenizer: CLIPTokenizer, unrendered: Renders, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Of three wordings of each scene's caption, and of the empty caption."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder)
    return torch.from_numpy(caption_ids(unrendered, folder, 3, workers=1))
