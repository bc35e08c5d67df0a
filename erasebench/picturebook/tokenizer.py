"""Picturebook's tokenizer: CLIP's byte-pair encoding with a vocabulary learnt from the world's captions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

CONTEXT_LENGTH = 77
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MERGES = 1536
"""Learnt tokens; with 512 bytes and 2 markers the vocabulary has 2,050 entries if the captions yield them all."""


def train_tokenizer(captions: Iterable[str], merges: int = MERGES) -> CLIPTokenizer:
    """Learn a vocabulary and return a tokenizer that follows CLIP's conventions.

    As in Stable Diffusion 1.x: lower case, ``</w>`` ends a word, ids are 256 bytes, 256 bytes that end a word, the
    merges, then BOS and EOS; EOS is also the padding; sequences have 77 tokens.

    Args:
        captions: the corpus.
        merges: how many tokens to learn at most (the corpus may yield fewer).
    """
    # An untrained CLIP tokenizer supplies the normalisation and the word splitting, so that training sees what
    # encoding will see.
    trained = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    trained.model = BPE(end_of_word_suffix="</w>", unk_token=EOS)
    trained.train_from_iterator(
        captions,
        BpeTrainer(
            vocab_size=merges + 2 * len(alphabet),
            initial_alphabet=alphabet,
            # Named here so that their ids, which decide between equally frequent pairs, do not depend on the order
            # in which a randomly seeded hash map yields the words.
            special_tokens=[letter + "</w>" for letter in alphabet],
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    pairs = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]][:merges]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in pairs), BOS, EOS]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
        merges=pairs,
        model_max_length=CONTEXT_LENGTH,
    )


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and also ``vocab.json`` and ``merges.txt``, which older transformers read."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
