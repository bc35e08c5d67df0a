"""Prompts that an attack found elsewhere, tried again: whether they depend on the model that they were found on."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.errors import EraseBenchError, NotApplicable, check_name
from erasebench.plugins import Attack, AttackContext, ThreatModel
from erasebench.registry import ATTACKS
from erasebench.texts import restored

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.training.target import Target

FILE = "attacks.csv"
"""In a run folder: what its attacks found."""


@ATTACKS.register("replay")
@dataclass(frozen=True)
class Replay(Attack):
    """Try the texts that an attack of another run found for the same prompts.

    A prompt for which that run found no text is tried as it is.

    Attributes:
        run: the folder of that run.
        method: of that run, as it stands in its table.
        by: the attack of that run, likewise.
    """

    threat_model: ClassVar[ThreatModel] = "text-black-box"

    run: str
    method: str
    by: str

    def identity(self) -> dict[str, str]:
        """SHA-256 of what was found for all prompts."""
        rows = sorted((concept, *pair) for concept, texts in self._texts().items() for pair in texts.items())
        return {"found": hashlib.sha256(repr(rows).encode()).hexdigest()}

    def check(self, domain: str, concept: Concept) -> None:
        """Raise :class:`NotApplicable` if that run found nothing for the concept."""
        if concept.name not in self._texts():
            raise NotApplicable(f"{self.run} has no prompts that {self.by} found for {concept.name}")

    def _texts(self) -> dict[str, dict[str, str]]:
        """The texts that were found, by concept and id of the prompt."""
        path = Path(self.run) / FILE
        try:
            with open(path, newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EraseBenchError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        missing_columns = {"method", "concept", "attack", "prompt_id", "found", "floor"} - set(rows[0] if rows else ())
        if missing_columns:
            raise EraseBenchError(
                f"{path} has no column '{min(missing_columns)}': it holds no prompts that attacks found"
            )
        check_name(f"method of the run {self.run}", self.method, {row["method"] for row in rows})
        own = [row for row in rows if row["method"] == self.method and row["floor"] != "True"]
        check_name(f"attack on {self.method} in the run {self.run}", self.by, {row["attack"] for row in own})
        texts: dict[str, dict[str, str]] = {}
        for row in own:
            if row["attack"] == self.by and row["found"]:
                texts.setdefault(row["concept"], {})[restored(row["prompt_id"])] = restored(row["found"])
        return texts

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Return what that run found."""
        known = self._texts().get(target.concept.name, {})
        return [
            Found(
                AdversarialPrompt(known.get(prompt.id, prompt.text)),
                note="" if prompt.id in known else "nothing was found for this prompt",
            )
            for prompt in target.prompts
        ]
