"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023).

Where paper and code differ, ``variant`` chooses; every choice can also be made by itself (see :data:`VARIANTS`).

Deviations from all variants: pictures have the model's own size (the 2024 code trains Stable Diffusion 1.4 at
1024 pixels); weights and Adam's state keep the model's precision (the 2024 code casts all to bfloat16); the frozen
model is not a second model but the same one with the trained parameters swapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.method import EraseContext, check_positive, check_sampling
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.parameters import Pattern, TwoWeights, select_parameters, training_attention
from erasebench.training.partial_sampling import CutSampling, TimestepMode
from erasebench.training.targets import Target, erased_noise
from erasebench.training.trace import Trace

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Variant = Literal["paper", "official-2023", "official-2024"]

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
    # The same at 25613d2.  Its "esd-u" also has parameters="noxattn-modules".
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
"""What an option that is left at None means, for each variant."""


@METHODS.register("esd-x", parameters="xattn")
@METHODS.register("esd-u", parameters="noxattn")
@dataclass(frozen=True)
class ESD:
    """Fine-tune the model to predict, for the concept, noise that leads away from it.

    Attributes:
        parameters: what is trained; the paper's ESD-x: ``xattn`` (styles), ESD-u: ``noxattn`` (nudity, objects).
        variant: whose settings the options that are None take.
        steps: gradient steps.
        learning_rate: of Adam.
        negative_guidance: eta; on the scale of ``target``.
        target: where the target starts from, see :func:`erased_noise`.
        sample_from: which model draws ``x_t``: the one in training, or the unerased one.
        timestep_mode: ``consistent``: the timestep is the noise level of ``x_t``.  ``official``: as in the 2023 code,
            which never runs the first sampling step and tells the model a noise level 39 to 58 timesteps (with 50
            sampling steps) above that of ``x_t``.
        sampler: of ``x_t``.
        start_guidance: scale of classifier-free guidance when sampling ``x_t``.
        sampling_steps: steps of a whole sampling run, of which a random number is run.
        batch_size: pictures in a gradient step; they share one number of sampling steps.
    """

    parameters: Pattern
    variant: Variant = "paper"
    steps: int | None = None
    learning_rate: float | None = None
    negative_guidance: float | None = None
    target: Target | None = None
    sample_from: Literal["trained", "frozen"] | None = None
    timestep_mode: TimestepMode | None = None
    sampler: Literal["ddim", "pndm"] | None = None
    start_guidance: float = 3.0
    sampling_steps: int = 50
    batch_size: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "steps", "learning_rate", "batch_size")
        check_sampling(self, "start_guidance")
        if self.option("timestep_mode") == "official" and self.option("sampler") != "ddim":
            raise EraseBenchError("timestep_mode 'official' is that of a DDIM sampler; set sampler to 'ddim'")

    def option(self, name: str) -> Any:
        """An option, or what its None means."""
        value = getattr(self, name)
        return VARIANTS[self.variant][name] if value is None else value

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts, one drawn at random for each picture of a step."""
        steps, eta, target = self.option("steps"), self.option("negative_guidance"), self.option("target")
        rng = torch.Generator("cpu").manual_seed(context.seed)
        with torch.no_grad():
            blank = model.embed([""])
            phrases = model.embed([concept.phrase for concept in concepts])
        blanks = blank.expand(self.batch_size)
        weights, trace = TwoWeights(select_parameters(model.unet, self.parameters)), Trace(context, steps)
        with weights, training_attention(model.device):
            adam = torch.optim.Adam(weights.parameters.values(), lr=self.option("learning_rate"))
            for _ in range(steps):
                concept = phrases[torch.randint(len(concepts), (self.batch_size,), generator=rng)]
                with torch.no_grad() if self.option("sample_from") == "trained" else weights.frozen():
                    x, t = self.noisy_latents(model, blank, concept, rng)
                with weights.frozen():
                    texts = Conditioning.cat([blanks, concept])
                    both = model.predict_noise(torch.cat([x, x]), torch.cat([t, t]), texts)
                    wanted = erased_noise(both[: self.batch_size], both[self.batch_size :], eta, target)
                loss = functional.mse_loss(model.predict_noise(x, t, concept), wanted)
                trace.step(loss=loss.item())
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
        return Erasure({f"unet.{name}": value for name, value in weights.trained.items()}, trace=tuple(trace.rows))

    def noisy_latents(
        self, model: DiffusionModel, blank: Conditioning, concept: Conditioning, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """``x_t``, sampled for the concept up to a random step, and the timestep ``t`` that the model is told."""
        sampler = Sampler(self.option("sampler"), self.sampling_steps, self.start_guidance)
        run = CutSampling.draw(model, sampler, len(concept), rng, self.option("timestep_mode"))
        return run.latents(model, blank, concept), run.timesteps
