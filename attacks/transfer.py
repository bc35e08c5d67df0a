"""Transfer: what an attack found on the unerased model, tried on erased ones.

Nothing is searched here.  Whether a find of the unerased model works on an erased one says how much of the concept is
still where it was, for an attacker who never had the erased model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from erasebench.errors import EraseBenchError
from erasebench.plugins import Attack, AttackContext, Need, ThreatModel
from erasebench.registry import ATTACKS

if TYPE_CHECKING:
    from erasebench.adversarial import Found
    from erasebench.concepts import Concept
    from erasebench.training.target import Target


@ATTACKS.register("transfer")
@dataclass(frozen=True)
class Transfer(Attack):
    """Try on each erased model the prompts that an attack found on the unerased one.

    Attributes:
        of: the attack's name, such as "unlearndiff"; it finds text.
    """

    threat_model: ClassVar[ThreatModel] = "text-black-box"
    needs: ClassVar[tuple[Need, ...]] = ("unerased",)

    of: str

    @property
    def transfer_of(self) -> str:
        """The attack whose finds are tried."""
        return self.of

    def check(self, domain: str, concept: Concept) -> None:
        """Check that there is such an attack.

        Raises:
            UnknownNameError: there is none of that name, with the nearest.
            EraseBenchError: it searches nothing itself, or finds embeddings where text is wanted or the reverse.
        """
        attack = ATTACKS.get(self.of).make
        assert isinstance(attack, type) and issubclass(attack, Attack)
        if issubclass(attack, Transfer):
            raise EraseBenchError(f"of: '{self.of}' searches nothing itself")
        if (attack.threat_model == "embedding") != (self.threat_model == "embedding"):
            other = "cce-transfer" if attack.threat_model == "embedding" else "transfer"
            raise EraseBenchError(
                f"of: the threat model of '{self.of}' is {attack.threat_model}; {other} is for such attacks"
            )

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Never called: the finds of the other attack are taken.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"the finds of '{self.of}' are tried, nothing is searched")


@ATTACKS.register("cce-transfer", of="cce")
@dataclass(frozen=True)
class EmbeddingTransfer(Transfer):
    """Try on each erased model the embeddings that an attack learnt on the unerased one.

    Attributes:
        of: the attack's name; it finds embeddings.
    """

    threat_model: ClassVar[ThreatModel] = "embedding"
