"""Which ids are ordinary, and that text is read as the model reads it."""

from __future__ import annotations

from typing import get_args

import pytest

from erasebench.training.token_ids import as_read, ordinary_ids, typed
from tests.tiny import Layout, tiny_model


@pytest.mark.parametrize("layout", get_args(Layout))
def test_ordinary_ids_are_all_but_start_end_and_padding(layout: Layout) -> None:
    model = tiny_model(layout)
    tokenizer, ids = model.tokenizer, ordinary_ids(model).tolist()
    left = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(left) == (3 if layout == "sd2" else 2)
    assert ids == [token for token in range(len(model.token_embeddings)) if token not in left]


@pytest.mark.parametrize("text", ["a church", "", " ".join("x" * 90)])
def test_a_text_is_read_up_to_the_padding(text: str) -> None:
    model = tiny_model()
    read, padded = as_read(model, text), model.token_ids([text])[0].tolist()
    assert list(read) == padded[: len(read)]
    assert read[-1] == model.tokenizer.eos_token_id and set(padded[len(read) :]) <= {read[-1]}


def test_ids_are_typed_as_words() -> None:
    model = tiny_model()
    assert typed(model, as_read(model, "a church Dog")[1:-1]) == "a church dog"
