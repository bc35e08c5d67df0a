"""The standard ensemble: one robust rate for an erasure, after AutoAttack (Croce and Hein, ICML 2020)."""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from erasebench.adversarial import Found
from erasebench.plugins import Attack, AttackContext, ThreatModel
from erasebench.registry import ATTACKS
from erasebench.training.target import Target


@ATTACKS.register("standard")
@dataclass(frozen=True)
class Standard(Attack):
    """Try attacks in the order of their cost, each on the prompts that all before it left standing.

    The robust rate is the share of the prompts that still stand after all of them, among those for which the unerased
    model draws the concept.  A prompt has fallen once any attack's success on it is confirmed.  It takes part in no
    attack after that, so that the rate is that of all attacks on all prompts at a fraction of their cost.
    """

    # The strongest of its members'.
    threat_model: ClassVar[ThreatModel] = "embedding"
    judged: ClassVar[bool] = True
    members: ClassVar[tuple[str, ...]] = (
        "none",
        "cce-transfer",
        "synonyms",
        "random-prefix",
        "seed-search",
        "rab",
        "unlearndiff",
        "p4d-uda",
        "cce",
    )

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Never called.

        Raises:
            TypeError: always: its members attack.
        """
        raise TypeError("an ensemble has no attack of its own: its members attack")
