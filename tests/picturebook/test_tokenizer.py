"""The tokenizer follows CLIP, and is the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from erasebench.picturebook.tokenizer import save_tokenizer, train_tokenizer
from erasebench.picturebook.training.data import Renders


def test_tokenizer_follows_clip(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"tokenizer.json", "vocab.json", "merges.txt"}
    size = len(loaded)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (size - 2, size - 1, size - 1)
    ids = loaded("A Photo of a CHURCH!", padding="max_length", truncation=True).input_ids
    assert len(ids) == loaded.model_max_length == 77
    assert ids[0] == size - 2
    assert ids[7:] == [size - 1] * 70
    assert ids == loaded("a photo of a church !", padding="max_length").input_ids
    assert loaded.decode(ids, skip_special_tokens=True) == "a photo of a church !"
    # Byte-level: what training never saw still encodes and decodes.
    assert loaded.decode(loaded("zyx 東京 ß").input_ids, skip_special_tokens=True) == "zyx 東京 ß"


def test_tokenizer_is_reproducible(tokenizer: CLIPTokenizer, unrendered: Renders) -> None:
    again = train_tokenizer(unrendered.captions(np.arange(300), epoch=0))
    assert again.get_vocab() == tokenizer.get_vocab()
