"""Tokens that an attack learns once, from images of a concept, and puts into every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.concepts import Concept
from erasebench.errors import NotApplicable
from erasebench.judging import Images
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.guidance import SafeLatentGuidance
from erasebench.models.guided import GuidedPrediction
from erasebench.plugins import AttackContext
from erasebench.sampling import noise_seed
from erasebench.training.inversion import invert, placeholder
from erasebench.training.latents import noisy
from erasebench.training.target import AFTER_WARMUP, Target
from erasebench.training.trace import Trace
from erasebench.training.words import name_pattern

WINDOW = 90
"""Momentum is rolled through timesteps of a window of so many, as in the published script."""
CURVE = 100
"""Points of the loss curve that is kept with each prompt."""


@dataclass(frozen=True)
class Budget:
    """The budget for learning tokens.

    Attributes:
        steps: gradient steps.
        batch_size: images in a gradient step.
        at_once: images that go through the U-Net together.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        inner_steps: timesteps that the momentum of a rule of guidance is rolled through for each image; 1: none.
    """

    steps: int
    batch_size: int
    at_once: int
    learning_rate: float
    weight_decay: float
    inner_steps: int = 1


def token_rng(purpose: str, concept: Concept, seed: int) -> torch.Generator:
    """A generator on the CPU, keyed by a purpose, the concept's name and the attack's seed."""
    return torch.Generator("cpu").manual_seed(noise_seed(f"{purpose} {concept.name}", seed))


def learn_tokens(
    target: Target,
    images: Images,
    context: AttackContext,
    templates: Sequence[str],
    start: Tensor,
    rng: torch.Generator,
    budget: Budget,
    flip: bool = True,
) -> dict[str, Tensor]:
    """Learn the embeddings of new tokens by textual inversion against the erased model.

    Where the erasure is a rule of guidance, :class:`GuidedError` is minimised, otherwise the squared error of the
    erased model's own noise prediction.

    Args:
        target: the model under attack.
        images: of the concept, uint8 ``[n, height, width, 3]``.
        context: is told each step.
        templates: prompts of the images, with a gap ``{}`` for the tokens.
        start: where the embeddings start, ``[k, width]``.
        rng: of everything random.
        budget: how long.
        flip: also learn from the images' mirror images, each as often.

    Returns:
        ``vectors``: float32 ``[k, width]``; ``losses``: of each step ``[steps]``; ``gradient``: the largest norm of a
        gradient ``[]``; ``passes``: rows of latents that went forward through the U-Net, int64 ``[]``.

    Raises:
        NotApplicable: there is no image.
        FloatingPointError: the search diverged.
        EraseBenchError: a template has no room for the tokens.
    """
    if not len(images):
        raise NotApplicable(f"the unerased model has no image of '{target.concept.phrase}' to learn from")
    latents = target.model.encode_images(images)
    if flip:
        latents = torch.cat([latents, target.model.encode_images(images[:, :, ::-1].copy())])
    guided = GuidedError(target, budget.inner_steps) if target.guided else None
    trace, norms = Trace(context, budget.steps), [0.0]
    vectors = invert(
        target.model,
        latents,
        templates,
        start,
        trace,
        rng,
        steps=budget.steps,
        learning_rate=budget.learning_rate,
        weight_decay=budget.weight_decay,
        batch_size=budget.batch_size,
        at_once=budget.at_once,
        objective=guided,
        watch=lambda gradient: norms.append(float(gradient.norm())),
    )
    if not vectors.isfinite().all():
        raise FloatingPointError("the learnt tokens hold NaN or infinite numbers")
    passes = budget.steps * budget.batch_size * (guided.passes if guided else 1)
    return {
        "vectors": vectors.float().cpu(),
        "losses": torch.tensor([float(row["loss"]) for row in trace.rows]),
        "gradient": torch.tensor(max(norms)),
        "passes": torch.tensor(passes),
    }


class GuidedError:
    """The squared error of what a rule of guidance predicts, an :data:`~erasebench.training.inversion.Objective`.

    It should predict what the unerased model does for the concept's phrase, under classifier-free guidance at the same
    scale.  Timesteps are uniform over all.  Where momentum is rolled, ``n`` is uniform from :data:`WINDOW` on, and
    distinct timesteps of the ``WINDOW`` before it are gone through from the noisiest on, with one noise: all of them
    move the momentum, with their gradients, and the last one's error counts.

    Args:
        target: the model under attack, whose erasure is a rule of guidance.
        inner_steps: timesteps for each image, in 1..WINDOW; 1: no rolling.
    """

    def __init__(self, target: Target, inner_steps: int = 1) -> None:
        self._target, self._inner_steps = target, inner_steps
        with torch.no_grad(), target.as_unerased() as model:
            self._phrase = model.embed([target.concept.phrase])

    @property
    def passes(self) -> int:
        """Rows of latents that go forward through the U-Net for each image: the rule's, and two for the unerased."""
        return self._inner_steps * self._target.passes_of_prediction + 2

    def __call__(self, latents: Tensor, text: Conditioning, rng: torch.Generator) -> Tensor:
        """Return the loss of latents ``[n, c, h, w]`` and of ``n`` prompts, with gradients to these."""
        roll = self._roll if self._inner_steps > 1 else self._predict
        x, t, predicted = roll(latents, text, rng)
        target = self._target.predict_unerased(x, t, self._phrase.expand(len(x)))
        return functional.mse_loss(predicted, target)

    def _predict(self, latents: Tensor, text: Conditioning, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        x, t, _ = noisy(self._target.model, latents, rng)
        return x, t, self._target.predict(x, t, text)

    def _roll(self, latents: Tensor, text: Conditioning, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        model = self._target.model
        times = descending_timesteps(len(latents), self._inner_steps, model.timestep_count, rng).to(model.device)
        noise = torch.randn(latents.shape, generator=rng).to(model.device)
        predict = GuidedPrediction(model, text, self._target.sampler.guidance_scale)
        for t in times:
            x = model.add_noise(latents, noise, t)
            predicted = predict(x, t, AFTER_WARMUP)
        return x, t, model.as_noise(predicted, x, t)


def descending_timesteps(count: int, steps: int, total: int, rng: torch.Generator) -> Tensor:
    """Distinct timesteps in descending order for each of some images, int64 ``[steps, count]``.

    They are drawn from ``n - WINDOW..n - 1``, with ``n`` uniform over ``WINDOW..total - 1``.
    """
    ends = torch.randint(WINDOW, total, (count,), generator=rng)
    offsets = torch.stack([torch.randperm(WINDOW, generator=rng)[:steps] for _ in range(count)])
    return (ends - WINDOW)[None] + offsets.sort(descending=True).values.T


def has_momentum(target: Target) -> bool:
    """True if a target's rule of guidance is safe latent diffusion with momentum; plug-ins' own rules count as none."""
    rule = target.model.guidance
    return isinstance(rule, SafeLatentGuidance) and rule.momentum_scale > 0


def put_in(model: DiffusionModel, text: str, concept: Concept, vectors: Tensor) -> tuple[AdversarialPrompt, str]:
    """Put learnt tokens in the place of a concept's words: its phrase or a synonym, wherever they stand.

    In front of a prompt that does not name the concept, or names it only beyond what the text encoder reads.

    Args:
        model: whose tokenizer reads the prompt.
        text: the prompt.
        concept: whose words give way.
        vectors: of the tokens, ``[k, width]``; they fit into an empty prompt.

    Returns:
        The prompt, with ``x`` for each token in its text, and a note for readers, '' if there is none.
    """
    words, limit = placeholder(len(vectors)), model.tokenizer.model_max_length

    def slots_of(parts: Sequence[str]) -> list[int]:
        starts = []
        for stop in range(1, len(parts)):
            before = model.tokenizer(words.join(parts[:stop]), add_special_tokens=False).input_ids
            starts.append(1 + len(before))
        # The last token that is read is the end of text.
        return [start for start in starts if start + len(vectors) < limit]

    parts, note = name_pattern([concept]).split(text), ""
    slots = slots_of(parts)
    if not slots:
        if len(parts) > 1:
            note = "the prompt names the concept beyond what the model reads: the learnt token stands in front of it"
        parts, slots = ["", f" {text}"], [1]
    places = tuple(start + k for start in slots for k in range(len(vectors)))
    array = vectors.repeat(len(slots), 1).numpy()
    return AdversarialPrompt(words.join(parts), vectors=array, slots=places), note


def found_tokens(prompt: AdversarialPrompt, learned: Mapping[str, Tensor], note: str = "") -> Found:
    """The find of an attack for a prompt by learning tokens: with its loss curve, as :data:`CURVE` means at most."""
    losses = learned["losses"].tensor_split(min(CURVE, len(learned["losses"])))
    curve = tuple(float(part.mean()) for part in losses)
    steps, gradient = len(learned["losses"]), float(learned["gradient"])
    return Found(prompt, steps=steps, losses=curve, gradient=gradient, note=note)
