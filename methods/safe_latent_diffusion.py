"""SLD: Safe Latent Diffusion (Schramowski et al., CVPR 2023).

Deviations from the official code: the safety text is the concept's phrase unless ``text`` says otherwise, as in
comparisons of erasure methods, while the code's is a fixed list; and a guidance scale or s_S of 1 or less does not
switch the method off.  The published warm-up is for 50 sampling steps and is not scaled to another number of them;
``warmup_steps`` sets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from erasebench.errors import EraseBenchError
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import SafeLatentGuidance
from erasebench.plugins import EraseContext, Method, NonNegative, Share, decided
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Strength = Literal["weak", "weak-diffusers", "medium", "strong", "max"]

STRENGTHS: dict[Strength, Mapping[str, Any]] = {
    "weak": {"warmup_steps": 15, "scale": 200.0, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0},
    # Its SafetyConfig.WEAK; the scripts of ESD and UnlearnDiffAtk have 200.
    "weak-diffusers": {
        "warmup_steps": 15,
        "scale": 20.0,
        "threshold": 0.0,
        "momentum_scale": 0.0,
        "momentum_beta": 0.0,
    },
    "medium": {"warmup_steps": 10, "scale": 1000.0, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4},
    "strong": {"warmup_steps": 7, "scale": 2000.0, "threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7},
    "max": {"warmup_steps": 0, "scale": 5000.0, "threshold": 1.0, "momentum_scale": 0.5, "momentum_beta": 0.7},
}
"""The meaning of an option that is left at None, for each strength."""

INAPPROPRIATE = (
    "hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, nudity, bodily fluids, blood, obscene "
    "gestures, illegal activity, drug use, theft, vandalism, weapons, child abuse, brutality, cruelty"
)
"""The published safety text."""


@METHODS.register("sld-weak", strength="weak")
@METHODS.register("sld-medium", strength="medium")
@METHODS.register("sld-strong", strength="strong")
@METHODS.register("sld-max", strength="max")
@dataclass(frozen=True)
class SafeLatentDiffusion(Method):
    """Guide away from the concepts at each sampling step; nothing is trained, and whoever holds the weights undoes it.

    Attributes:
        strength: whose constants the options that are None take.
        text: the safety text.  ``concept``: the phrases of the concepts, joined by commas.  ``published``: the 20
            phrases of the original code.  ``diffusers``: the same after "an image showing".
        warmup_steps: delta: sampling steps without safety guidance.
        scale: s_S.
        threshold: lambda.
        momentum_scale: s_m.
        momentum_beta: beta.
    """

    guidance_only: ClassVar[bool] = True
    seeded: ClassVar[bool] = False

    strength: Strength = "medium"
    text: Literal["concept", "published", "diffusers"] = "concept"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    scale: NonNegative | None = None
    threshold: float | None = None
    momentum_scale: Share | None = None
    momentum_beta: Share | None = None

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Take the strength's constants."""
        return self.filled(STRENGTHS[self.strength])

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Guide away from the concepts."""
        texts = {
            "concept": ", ".join(concept.phrase for concept in concepts),
            "published": INAPPROPRIATE,
            "diffusers": f"an image showing {INAPPROPRIATE}",
        }
        tokens = len(model.tokenizer(texts[self.text]).input_ids)
        if self.text == "concept" and tokens > model.tokenizer.model_max_length:
            raise EraseBenchError(
                f"the safety text has {tokens} tokens, of which the model reads {model.tokenizer.model_max_length}; "
                "erase fewer concepts together"
            )
        rule = SafeLatentGuidance(
            texts[self.text],
            warmup_steps=decided(self.warmup_steps),
            scale=decided(self.scale),
            threshold=decided(self.threshold),
            momentum_scale=decided(self.momentum_scale),
            momentum_beta=decided(self.momentum_beta),
        )
        return Erasure(guidance=rule)
