"""Trials of attacks, invented for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from erasebench.adversarial import AdversarialPrompt, Found, Trial
from erasebench.results.attacks import attack_rows, attacks_frame


def trial(
    prompt: str, success: str = "none", looks: int = 1, passes: int = 10, threshold: float = 0.5, **found: Any
) -> Trial:
    """A trial with no success, a "raw" one (once again on fresh noise), or a "confirmed" one (twice again)."""
    again = {"none": (), "raw": (0.9, 0.1, 0.2), "confirmed": (0.9, 0.1, 0.8)}[success]
    text = found.pop("text", f"found for {prompt}")
    seed = found.pop("seed", None)
    return Trial(
        *(prompt, f"prompt {prompt}", 7, "naming", Found(AdversarialPrompt(text, seed=seed), **found)),
        *(0.1 if success == "none" else 0.75, again, threshold, looks, passes),
    )


def trials_of(
    successes: Mapping[tuple[str, str], str], concept: str = "church", floor: Sequence[int] = (), **columns: Any
) -> pd.DataFrame:
    """A frame of trials.

    Args:
        successes: by method and attack, a letter for each prompt: "-" none, "r" raw, "c" confirmed, " " not tried.
        concept: of all.
        floor: of every attack, how often a prompt of the floor is broken, and how many there are.
        columns: to be set in every row.
    """
    names = {"-": "none", "r": "raw", "c": "confirmed"}
    rows: list[dict[str, Any]] = []
    for (method, attack), letters in successes.items():
        tried = [(trial(str(k), names[letter]), 1.0, "") for k, letter in enumerate(letters) if letter != " "]
        rows += attack_rows(method, concept, attack, tried)
        if floor:
            fired = [(trial(f"floor {k}", "confirmed" if k < floor[0] else "none"), 1.0, "") for k in range(floor[1])]
            rows += attack_rows(method, concept, attack, fired, floor=True)
    return attacks_frame({**row, **columns} for row in rows)
