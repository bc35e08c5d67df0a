"""The positions of a concept's words in a prompt, and what they may be mapped to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from erasebench.errors import NotApplicable
from erasebench.models.diffusion import DiffusionModel

if TYPE_CHECKING:
    from erasebench.concepts import Concept


def token_positions(model: DiffusionModel, prompt: str, phrase: str) -> list[int]:
    """The positions of a phrase's tokens among a prompt's, ascending; position 0 is the start token.

    Every occurrence counts; what truncation cuts off does not.  Empty where the prompt does not have the phrase as
    whole words, or where the phrase is blank.
    """
    ids = model.tokenizer(prompt, truncation=True, max_length=model.tokenizer.model_max_length).input_ids
    # A CLIP token never crosses a word boundary, so that a phrase has the same ids wherever it stands.
    sought = model.tokenizer(phrase, add_special_tokens=False).input_ids
    length = len(sought)
    starts = [k for k in range(len(ids) - length + 1) if ids[k : k + length] == sought]
    return sorted({start + offset for start in starts for offset in range(length)})


def name_pattern(concepts: Iterable[Concept]) -> re.Pattern[str]:
    """Matches the phrase or a synonym of one of the concepts, in whole words and any case, the longest there is."""
    words = {re.escape(word) for concept in concepts for word in (concept.phrase, *concept.synonyms)}
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(words, key=len, reverse=True))})(?!\w)", re.IGNORECASE)


def check_anchors(concepts: Sequence[Concept], mapped: Iterable[tuple[Concept, str]]) -> None:
    """Check that no concept is mapped to what is itself to be erased; articles do not count.

    Raises:
        NotApplicable: one is.
    """
    erased = {_bare(concept.phrase) for concept in concepts}
    for concept, anchor in mapped:
        if _bare(anchor) in erased:
            raise NotApplicable(f"'{concept.phrase}' would be mapped to '{anchor}', which is to be erased")


def _bare(words: str) -> str:
    return re.sub(r"^(an?|the)\s+", "", words.strip().casefold())
