"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023).

Where paper and code differ, ``variant`` chooses; every choice can also be made by itself (see :data:`VARIANTS`).

Deviations from all variants: images have the model's own size (the 2024 code trains Stable Diffusion 1.4 at
1024 pixels); weights and Adam's state keep the model's precision (the 2024 code casts all to bfloat16); the frozen
model is not a second model but the same one with the trained parameters swapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, decided
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.parameters import Pattern, TwoWeights, select_parameters, training_attention
from erasebench.training.partial_sampling import CutSampling, TimestepMode
from erasebench.training.targets import Target, erased_noise
from erasebench.training.trace import Trace

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Variant = Literal["paper", "official-2023", "official-2024"]
Parameters = Literal[Pattern, "esd-x", "esd-u"]

VARIANTS: dict[Variant, Mapping[str, Any]] = {
    "paper": {
        "steps": 1000,
        "learning_rate": 1e-5,
        "negative_guidance": 1.0,
        "target": "from-blank",
        "sample_from": "trained",
        "timestep_mode": "consistent",
        "sampler": "ddim",
    },
    # github.com/rohitgandikota/erasing at a2189e9, which most papers benchmark.
    "official-2023": {
        "steps": 1000,
        "learning_rate": 1e-5,
        "negative_guidance": 1.0,
        "target": "from-blank",
        "sample_from": "trained",
        "timestep_mode": "official",
        "sampler": "ddim",
    },
    # The same at 25613d2.
    "official-2024": {
        "steps": 200,
        "learning_rate": 5e-5,
        "negative_guidance": 2.0,
        "target": "from-concept",
        "sample_from": "frozen",
        "timestep_mode": "consistent",
        "sampler": "pndm",
    },
}
"""The meaning of an option that is left at None, for each variant."""
SETS: dict[Variant, dict[Parameters, Parameters]] = {
    "paper": {"esd-x": "xattn", "esd-u": "noxattn"},
    "official-2023": {"esd-x": "xattn", "esd-u": "noxattn"},
    "official-2024": {"esd-x": "xattn", "esd-u": "noxattn-modules"},
}
"""The parameters that ESD-x and ESD-u train, for each variant."""


@METHODS.register("esd-x", parameters="esd-x")
@METHODS.register("esd-u", parameters="esd-u")
@dataclass(frozen=True)
class ESD(Method):
    """Fine-tune the model to predict, for the concept, noise that leads away from it.

    Attributes:
        parameters: what is trained: ``esd-x``: the variant's for styles, the cross-attention.  ``esd-u``: the
            variant's for nudity and objects: ``noxattn``, or ``noxattn-modules`` of the 2024 code.  Or any other set;
            of these the 2023 code has ``selfattn``, ``full``, ``notime``, ``xlayer`` and ``selflayer``, the 2024 code
            ``xattn-kv`` ("esd-x-strict") and ``full-modules`` ("esd-all").
        variant: whose settings the options that are None take.
        steps: gradient steps.
        learning_rate: of Adam.
        negative_guidance: eta; on the scale of ``target``.
        target: where the target starts from, see :func:`erased_noise`.
        sample_from: which model draws ``x_t``: the one in training, or the unerased one.
        erase_from: the prompt that the concept is erased from, as in the 2024 code: ``x_t`` is drawn for it, and the
            model is trained on it, away from the concept; if None, the concept itself.
        timestep_mode: ``consistent``: the timestep is the noise level of ``x_t``.  ``official``: as in the 2023 code,
            which never runs the first sampling step and tells the model a noise level 39 to 58 timesteps (with 50
            sampling steps) above that of ``x_t``.
        sampler: of ``x_t``.
        start_guidance: scale of classifier-free guidance when sampling ``x_t``.
        sampling_steps: steps of a whole sampling run, of which a random number is run.
        batch_size: images in a gradient step; they share one number of sampling steps.
    """

    parameters: Parameters
    variant: Variant = "paper"
    steps: Count | None = None
    learning_rate: Positive | None = None
    negative_guidance: float | None = None
    target: Target | None = None
    sample_from: Literal["trained", "frozen"] | None = None
    erase_from: str | None = None
    timestep_mode: TimestepMode | None = None
    sampler: Literal["ddim", "pndm"] | None = None
    start_guidance: NonNegative = 3.0
    sampling_steps: SamplingSteps = 50
    batch_size: Count = 1

    def __post_init__(self) -> None:
        default = VARIANTS[self.variant]
        mode, sampler = self.timestep_mode or default["timestep_mode"], self.sampler or default["sampler"]
        if mode == "official" and sampler != "ddim":
            raise EraseBenchError("timestep_mode 'official' is that of a DDIM sampler; set sampler to 'ddim'")

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Take the variant's settings."""
        chosen = replace(self, parameters=SETS[self.variant].get(self.parameters, self.parameters))
        return chosen.filled(VARIANTS[self.variant])

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts, one drawn at random for each image of a step."""
        steps, eta = decided(self.steps), decided(self.negative_guidance)
        target: Target = decided(self.target)
        pattern = cast(Pattern, self.parameters)  # resolved
        rng = torch.Generator("cpu").manual_seed(context.seed)
        with torch.no_grad():
            blank, unconditional = model.embed([""]), model.embed_negative([""])
            phrases = model.embed([concept.phrase for concept in concepts])
            source = None if self.erase_from is None else model.embed([self.erase_from] * self.batch_size)
        blanks = blank.expand(self.batch_size)
        weights, trace = TwoWeights(select_parameters(model.unet, pattern)), Trace(context, steps)
        with weights, training_attention(model.device):
            adam = torch.optim.Adam(weights.parameters.values(), lr=decided(self.learning_rate))
            for _ in range(steps):
                concept = phrases[torch.randint(len(concepts), (self.batch_size,), generator=rng)]
                with torch.no_grad() if self.sample_from == "trained" else weights.frozen():
                    x, t = self.noisy_latents(model, unconditional, concept if source is None else source, rng)
                with weights.frozen():
                    texts = [blanks, concept] if source is None else [blanks, concept, source]
                    rows = torch.cat([x] * len(texts)), torch.cat([t] * len(texts)), Conditioning.cat(texts)
                    without, named, *origin = model.predict_noise(*rows).chunk(len(texts))
                    goal = erased_noise(without, named, eta, target, *origin)
                loss = functional.mse_loss(model.predict_noise(x, t, texts[-1]), goal)
                trace.step(loss=loss.item())
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
        return Erasure({f"unet.{name}": value for name, value in weights.trained.items()}, trace=tuple(trace.rows))

    def noisy_latents(
        self, model: DiffusionModel, unconditional: Conditioning, concept: Conditioning, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """``x_t``, sampled for the concept up to a random step, and the timestep ``t`` that the model is told."""
        sampler = Sampler(decided(self.sampler), self.sampling_steps, self.start_guidance)
        run = CutSampling.draw(model, sampler, len(concept), rng, decided(self.timestep_mode))
        return run.latents(model, unconditional, concept), run.timesteps
