"""The target of an attack: a model with an erasure in force, prompts, and the means to look at what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erasebench.adversarial import AdversarialPrompt
from erasebench.concepts import Concept, Prompt
from erasebench.judging import Images
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.models.guided import GuidedPrediction
from erasebench.sampling import Sampler, noise_seed, sample_latents, starting_noise

AFTER_WARMUP = 1000
"""The sampling step that a guidance rule is told in a search: beyond any warm-up, when all of it is at work."""


@dataclass(frozen=True)
class Looks:
    """Images that were judged: uint8 ``[n, height, width, 3]``, and the judge's scores ``[n]``."""

    images: Images
    scores: NDArray[np.float32]


@dataclass
class Target:
    """A model under attack.

    Attributes:
        model: with the erasure in force.
        undo: what makes it the unerased model again.
        concept: that shall come back.
        prompts: to attack, all at once.
        sampler: how images are drawn.
        judge: scores of images ``[n]``, beside the texts that they were drawn from.
        threshold: from which score on the concept is there.
        unerased: images of each prompt by the unerased model, uint8 ``[k, height, width, 3]``, the one of the prompt's
            own seed first, and the judge's scores of them ``[k]``; empty unless the attack needs them.
        features: L2-normalised features of images ``[n, d]``, by the domain's CLIP.
        looks: how many images of each prompt were judged so far.
        passes: how many rows of latents went forward through the U-Net for each prompt so far.
    """

    model: DiffusionModel
    undo: Erasure
    concept: Concept
    prompts: Sequence[Prompt]
    sampler: Sampler
    judge: Callable[[Images, Sequence[str]], NDArray[np.float32]]
    threshold: float
    unerased: Sequence[Looks] = ()
    features: Callable[[Images], NDArray[np.float32]] | None = None
    looks: list[int] = field(init=False)
    passes: list[int] = field(init=False)
    _last: dict[int, tuple[AdversarialPrompt, NDArray[np.uint8], float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.looks, self.passes = [0] * len(self.prompts), [0] * len(self.prompts)

    def look(
        self, rows: Sequence[int], prompts: Sequence[AdversarialPrompt], seeds: Sequence[int] | None = None
    ) -> Looks:
        """Draw one image of each adversarial prompt, and judge it.

        An image starts from the noise of the prompt that was attacked: the same as without the attack.

        Args:
            rows: which of the target's prompts each is for; one may occur several times.
            prompts: what to draw.
            seeds: of the noise; if omitted those of the adversarial prompts, or of the attacked ones.
        """
        own = [
            self.prompts[row].seed if prompt.seed is None else prompt.seed
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        chosen = own if seeds is None else list(seeds)
        passes = self.sampler.steps * (1 + len(self.model.guidance.texts))
        shape = self.sampler.latent_shape(self.model)

        def draw(part: slice) -> Images:
            noise = starting_noise([self.prompts[row].id for row in rows[part]], chosen[part], shape)
            latents = sample_latents(
                self.model, noise.to(self.model.device), self.embed(prompts[part]), self.sampler, texts=texts
            )
            return self.model.decode(latents)

        with torch.no_grad():
            texts = self.model.embed_negative(self.model.guidance.texts)
            images = [*self.model.batch_sizes.drawn.batches(len(rows), draw)]
        joined = np.concatenate(images) if images else np.zeros((0, 1, 1, 3), np.uint8)
        scores = self.judge(joined, [prompt.text for prompt in prompts]) if images else np.zeros(0, np.float32)
        for k, row in enumerate(rows):
            self.looks[row] += 1
            self.passes[row] += passes
            if seeds is None:
                self._last[row] = prompts[k], joined[k], float(scores[k])
        return Looks(joined, scores)

    def last_look(self, row: int, prompt: AdversarialPrompt) -> tuple[NDArray[np.uint8], float] | None:
        """The image of a prompt and its score, if it is what was looked at last for this row."""
        known = self._last.get(row)
        return known[1:] if known and known[0] is prompt else None

    def embed(self, prompts: Sequence[AdversarialPrompt]) -> Conditioning:
        """Embed adversarial prompts: as text is read, as vectors in slots, or as they are."""
        parts: list[Conditioning] = []
        for prompt in prompts:
            if prompt.embedding is not None:
                parts.append(Conditioning(torch.from_numpy(prompt.embedding)[None].to(self.model.device)))
            elif prompt.vectors is not None:
                vectors = torch.from_numpy(prompt.vectors).to(self.model.device)
                parts.append(self.model.embed_vectors(self.model.token_ids([prompt.text]), vectors, prompt.slots))
            else:
                parts.append(self.model.embed([prompt.text]))
        return Conditioning.cat(parts)

    @contextmanager
    def as_unerased(self) -> Iterator[DiffusionModel]:
        """The model without its erasure, which is in force again however the block ends."""
        with self.model.erased(self.undo) as model:
            yield model

    @property
    def guided(self) -> bool:
        """True if the erasure is a rule of guidance, so that the U-Net alone says nothing of it."""
        return self.model.guidance != ClassifierFreeGuidance()

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the noise in latents as the erased model does, with gradients to the conditioning.

        The U-Net's own prediction; where the erasure is a rule of guidance, what the rule makes of it, at the sampler's
        guidance scale and beyond any warm-up.

        Args:
            latents: noisy latents ``[n, c, h, w]``.
            timesteps: ``[n]``.
            conditioning: of ``n`` prompts.
        """
        if not self.guided:
            return self.model.predict_noise(latents, timesteps, conditioning)
        scale = self.sampler.guidance_scale
        predicted = self.model.predict_guided(latents, timesteps, conditioning, scale, AFTER_WARMUP)
        return self.model.as_noise(predicted, latents, timesteps)

    @torch.no_grad()
    def predict_unerased(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the noise as the unerased model does: what :meth:`predict` should give.

        Classifier-free guidance takes the rule's place where the erasure is one.  The conditioning should be of the
        unerased text encoder.  Weights are swapped once however many latents there are; they go through the U-Net
        in batches.
        """
        guided = self.guided
        with self.as_unerased() as model:

            def predict(part: slice) -> Tensor:
                x, t, text = latents[part], timesteps[part], conditioning[part]
                if guided:
                    prediction = GuidedPrediction(model, text, self.sampler.guidance_scale)
                    return model.as_noise(prediction(x, t), x, t)
                return model.predict_noise(x, t, text)

            return torch.cat([*model.batch_sizes.drawn.batches(len(latents), predict)])

    @property
    def passes_of_prediction(self) -> int:
        """Rows of latents that :meth:`predict` sends through the U-Net for each of its own."""
        return 1 + len(self.model.guidance.texts) if self.guided else 1

    def spend(self, rows: Sequence[int], passes: int = 1) -> None:
        """Note passes that the search itself took for some of the prompts; those of looks are noted already."""
        for row in rows:
            self.passes[row] += passes


def generators(prompts: Sequence[Prompt], seed: int, purpose: str) -> list[torch.Generator]:
    """A generator for each prompt, on the CPU, keyed by its id, its seed, the attack's seed and a purpose.

    What is drawn for a prompt so depends on no other prompt of a batch.
    """
    return [
        torch.Generator("cpu").manual_seed(noise_seed(f"{purpose} {seed} {prompt.id}", prompt.seed))
        for prompt in prompts
    ]


def draw_noise(rngs: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise ``[n, *shape]``, each row from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=rng) for rng in rngs])


def as_images(looks: Sequence[Looks]) -> Images:
    """The first image of each prompt, uint8 ``[n, height, width, 3]``."""
    return np.stack([look.images[0] for look in looks])
