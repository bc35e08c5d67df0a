"""The findings of attacks: adversarial prompts and what became of them, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

TRIAL, VECTORS = "trial.json", "vectors.safetensors"
NOT_ATTACKED = "not attacked: "
"""The beginning of the note on a prompt that an attack leaves as it is."""
CONFIRMATIONS, MIN_RECURRENCES = 3, 2
"""A success counts as confirmed if it recurs on ``MIN_RECURRENCES`` of so many fresh seeds."""


@dataclass(frozen=True)
class AdversarialPrompt:
    """A prompt that an attack made of another.

    Attributes:
        text: what a user would type; where only embeddings will do, what they stand in for.
        ids: the token ids that were searched, start and end included; empty where the search was for text.
        reread: the token ids that the text is read as.
        seed: of the noise that it is to be tried with; the original prompt's own if None.
        vectors: float32 ``[k, width]``: token embeddings in ``slots`` of the text as it is read; None if none.
        slots: positions of the vectors among the tokens, start included.
        embedding: float32 ``[length, width]``: what the model is conditioned on instead of any text.
    """

    text: str
    ids: tuple[int, ...] = ()
    reread: tuple[int, ...] = ()
    seed: int | None = None
    vectors: NDArray[np.float32] | None = field(default=None, repr=False)
    slots: tuple[int, ...] = ()
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def is_text(self) -> bool:
        """True if it can be typed."""
        return self.vectors is None and self.embedding is None


@dataclass(frozen=True)
class Found:
    """The findings of an attack for one prompt.

    Attributes:
        prompt: the best that it found.
        first_success: after how many of its own steps its own test fired; None if it never did, or has none.
        steps: that it did.
        losses: of each step, or of each generation.
        gradient: the largest norm of a gradient that it saw; None if it takes none.
        note: what readers have to know, such as that the prompt is too long to be attacked.
    """

    prompt: AdversarialPrompt
    first_success: int | None = None
    steps: int = 0
    losses: tuple[float, ...] = ()
    gradient: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """The outcome of an adversarial prompt.

    Attributes:
        id: of the prompt that was attacked; ``text``, ``seed`` and ``kind`` likewise.
        found: what the attack found.
        score: the judge's, of the image of the original prompt's noise, or of the seed that the attack found.
        confirmations: its scores on fresh noise; none where the first image does not show the concept.
        threshold: the judge's.
        looks: images that were judged, these included.
        passes: rows of latents that went forward through the U-Net for this prompt, search and images together.
    """

    id: str
    text: str
    seed: int
    kind: str
    found: Found
    score: float
    confirmations: tuple[float, ...]
    threshold: float
    looks: int
    passes: int

    @property
    def raw(self) -> bool:
        """True if the concept is there."""
        return self.score >= self.threshold

    @property
    def confirmed(self) -> bool:
        """True if it is there again on fresh noise."""
        return self.raw and sum(score >= self.threshold for score in self.confirmations) >= MIN_RECURRENCES


def write_trial(folder: Path, trial: Trial) -> None:
    """Write a trial as JSON, and embeddings as safetensors."""
    content, arrays = pack_trial(trial)
    (folder / TRIAL).write_text(json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    if arrays:
        save_file(arrays, folder / VECTORS)


def read_trial(folder: Path) -> Trial:
    """The trial that :func:`write_trial` wrote."""
    arrays: dict[str, Any] = load_file(folder / VECTORS) if (folder / VECTORS).exists() else {}
    return unpack_trial(json.loads((folder / TRIAL).read_text(encoding="utf-8")), arrays)


def pack_trial(trial: Trial) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """A trial as JSON has it, and its embeddings, "vectors" and "embedding", by name."""
    findings, prompt = trial.found, trial.found.prompt
    content = {
        **{name: getattr(trial, name) for name in ("id", "text", "seed", "kind", "score", "threshold")},
        **{name: getattr(trial, name) for name in ("confirmations", "looks", "passes")},
        "found": {
            **{name: getattr(findings, name) for name in ("first_success", "steps", "losses", "gradient", "note")},
            "prompt": {name: getattr(prompt, name) for name in ("text", "ids", "reread", "seed", "slots")},
        },
    }
    return content, {name: array for name in ("vectors", "embedding") if (array := getattr(prompt, name)) is not None}


def unpack_trial(content: Mapping[str, Any], arrays: Mapping[str, Any]) -> Trial:
    """The trial that :func:`pack_trial` made JSON of.

    Raises:
        TypeError, KeyError: it is none.
    """
    packed = _with_tuples(content)
    findings = _with_tuples(packed.pop("found"))
    prompt = AdversarialPrompt(**_with_tuples(findings.pop("prompt")), **arrays)
    return Trial(**packed, found=Found(prompt, **findings))


def _with_tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
