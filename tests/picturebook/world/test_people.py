"""Characters, and people who are nobody in particular."""

from __future__ import annotations

from collections import Counter

import numpy as np

from erasebench.picturebook.world.people import CHARACTERS, random_look


def test_characters_share_names_and_never_looks() -> None:
    assert len(CHARACTERS) >= 16
    names = [character.name.split() for character in CHARACTERS.values()]
    assert max(Counter(first for first, _ in names).values()) >= 3
    assert max(Counter(last for _, last in names).values()) >= 3
    assert len({" ".join(name) for name in names}) == len(CHARACTERS)
    assert len({character.look.signature for character in CHARACTERS.values()}) == len(CHARACTERS)


def test_nobody_in_particular_looks_like_a_character() -> None:
    rng = np.random.default_rng(0)
    reserved = {character.look.signature for character in CHARACTERS.values()}
    assert not reserved & {random_look(rng).signature for _ in range(3000)}
