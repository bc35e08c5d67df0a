"""MACE: Mass Concept Erasure in Diffusion Models (Lu et al., CVPR 2024).

Three stages, all on the key and value projections of the cross-attention: a closed form takes what a concept leaves in
the words around it out of them (eq. 2); one LoRA for each concept then suppresses the attention that images pay to
its own words (eq. 3); a second closed form makes one matrix of all LoRAs (eq. 7).  What it takes of a prompt is summed
up in matrices of moments, such as ``sum e e^T``, so that a hundred concepts need no more memory than one.

Settings that are None take what the authors' configurations have for the task (:data:`TASKS`).

Where paper and code (github.com/Shilin-LU/MACE at 057e7a6) differ, and which is followed:

- Lambda_1: the code multiplies by it twice.  The paper, or ``prior_scale_mode="official"``.
- The norm of eq. 3: squared in the paper, as far as its text shows; not in the code.  The code, or ``loss="paper"``.
- The tokens of eq. 3: the paper has the concept's own; the code adds every position with the id of the end of text
  (its "pooler"), with Stable Diffusion 1.x all of the padding.  The code, or ``use_pooler=False``.
- The positions of eq. 7: the target phrases in the paper's text, the words around them in its symbols; in the code all
  positions of the prompts, start, concept and padding included.  The code.
- Importance sampling (eq. 5): "throughout" in the paper; off in the code's configuration for explicit concepts.  The
  code; ``importance_sampling`` chooses.
- The image of a training step: of the 8, the code draws one with replacement; the paper does not say.  The code.
- ``lamb``: eq. 1 and 7 have no such term; appendix C.2 and the configurations have it for objects.  Both closed forms
  have it, towards the old matrix and the refined one, as in the code.
- Masks of styles: the shipped configuration wants some and fails.  The paper's experiments had none, nor has this.

Beyond what was published: ``lamb`` is known for three objects alone (:data:`OBJECT_LAMB`), and 1e2 serves all others,
and objects erased together; ``domain_scale`` is known for 1, 5, 10 and 100 celebrities and for 100 artists, and the
next larger number serves those between, the last one those beyond.

What is to be preserved: the code has sums over the tokens of all captions of COCO (4.7e7 of them), which are not part
of this project, and over prompts for the names to retain, which were never published in a readable form.  Its scales
are for such sums, so that they mean nothing for the sum over a few captions.  ``prior_sums="published"`` therefore
takes the mean over whatever tokens there are and counts it as the published number of them; ``"plain"`` leaves the
sums as they are.

Deviations from the code: prompts come from templates written for this project, 30 for things and 30 for styles, as
many and of the same kinds as the code's; a concept's words are those that its phrase puts into a template (the code:
what is not in the common beginning and end of the prompts of concept and mapping, so that words that both phrases
begin or end with count as words around them); images go to the U-Net as the latents that they were sampled as,
without a VAE in between, uncropped; captions that name a concept are left out of the prior; the closed forms are
solved in float64; where the segmenter finds nothing in an image, its whole attention map counts (for abstract
concepts the author suggests this); a synonym's images are segmented by the concept's phrase; violent and
inappropriate concepts take the settings of nudity, the only such concept of the paper. For styles the whole map always
counts, as in the paper's experiments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import yaml
from pydantic.dataclasses import dataclass
from torch import Tensor

from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.files import hash_file_once
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, decided
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.adapters import Adapters
from erasebench.training.attention import attention_loss, cross_attention_maps
from erasebench.training.captions import names, retained, world_captions
from erasebench.training.closed_forms import fused, refinement
from erasebench.training.embedded_prompts import EmbeddedPrompts, text_moment
from erasebench.training.latents import noisy, training_latents
from erasebench.training.parameters import select_parameters, training_attention
from erasebench.training.text_files import read_lines
from erasebench.training.trace import Trace
from erasebench.training.words import check_anchors

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Task = Literal["object", "celebrity", "artist", "explicit"]

SETTINGS: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("mace.yaml").read_text(encoding="utf-8"))
"""Tasks, scales and prompts; the file says of each what it is."""
TASKS: Mapping[Task, Mapping[str, Any]] = SETTINGS["tasks"]
"""The meaning of an option that is left at None, for each task of the paper."""
OBJECT_LAMB: Mapping[str, float] = SETTINGS["object_lamb"]
CELEBRITY_DOMAIN_SCALES: Mapping[int, float] = SETTINGS["celebrity_domain_scales"]
TASK_OF_KIND: Mapping[str, Task] = SETTINGS["kinds"]
TIMESTEPS = 1000
"""Of the schedule that Stable Diffusion and Picturebook were trained with."""
PUBLISHED_TOKENS = 4.7e7
"""Tokens in the code's sums over COCO's captions: 617,000 captions of 77."""
PUBLISHED_DOMAIN_TOKENS = 7700.0
"""Tokens in its sums over names to retain, if that is one prompt for each of the paper's 100; not published."""
CAPTIONS = 1000
"""The number of captions of a domain's own world that make its prior."""


@METHODS.register("mace")
@dataclass(frozen=True)
class MACE(Method):
    """Take a concept out of the words around it, suppress its own attention by a LoRA, and fuse the LoRAs.

    Concepts are mapped to their anchors.  Each concept has its own LoRA; any number is erased at once.

    Attributes:
        task: whose settings the options that are None take; if None, the concepts' kind decides.
        lamb: weight of staying close to the old matrix in both closed forms: per unit of squared embedding norm.
        refinement_prior_scale: lambda_1 (eq. 1), weight of the prior in the refinement.
        fusion_prior_scale: lambda_2 (eq. 7), weight of the prior in the fusion.
        domain_scale: weight of the concepts' neighbours within the prior (eq. 19).
        prior: captions whose keys and values should stay: ``captions``: on Picturebook those of its training scenes,
            photographs have none; or the path of a text file with one caption on each line, such as COCO's.  To these
            come the concepts' neighbours.  ``neighbours``: only these.  ``none``: nothing.
        prior_sums: ``published``: scales are for as many tokens as the published ones; ``plain``: for those there are.
        prior_scale_mode: ``paper``: lambda_1 as in eq. 1.  ``official``: its square, as in the code, which multiplies
            by it twice.
        loss: ``official``: for each layer the Frobenius norm, as in the code.  ``paper``: its square (eq. 3).
        use_pooler: also suppress attention to every end-of-text token: with Stable Diffusion 1.x, which pads with it,
            all of the padding; with 2.x the one token.
        steps: gradient steps for each concept.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: images in a gradient step.
        rank: of each LoRA.
        importance_sampling: draw timesteps from eq. 5 (CFIS) instead of uniformly.
        interval_start: t_1 of eq. 5.
        interval_end: t_2 of eq. 5.
        temperature: gamma of eq. 5.
        synonyms: erase the concepts' synonyms as concepts of their own.
        pictures: images of each concept.
        sampler: of these.
        sampling_steps: of these.
        guidance_scale: of these.
    """

    task: Task | None = None
    lamb: NonNegative | None = None
    refinement_prior_scale: NonNegative | None = None
    fusion_prior_scale: NonNegative | None = None
    domain_scale: NonNegative | None = None
    prior: str = "captions"
    prior_sums: Literal["published", "plain"] = "published"
    prior_scale_mode: Literal["paper", "official"] = "paper"
    loss: Literal["official", "paper"] = "official"
    use_pooler: bool = True
    steps: Count | None = None
    learning_rate: Positive | None = None
    weight_decay: NonNegative = 0.01
    batch_size: Count = 1
    rank: Count = 1
    importance_sampling: bool | None = None
    interval_start: float = 200.0
    interval_end: float = 400.0
    temperature: Positive = 0.05
    synonyms: bool | None = None
    pictures: Count = 8
    sampler: str = "dpm-solver++"
    sampling_steps: SamplingSteps = 30
    guidance_scale: NonNegative = 7.5

    def __post_init__(self) -> None:
        if not 0 <= self.interval_start < min(self.interval_end, TIMESTEPS):
            raise EraseBenchError(
                f"interval_start must be from 0 to below interval_end and {TIMESTEPS}, not {self.interval_start} to "
                f"{self.interval_end}"
            )
        Sampler(self.sampler, self.sampling_steps)

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Decide the task by the concepts' kinds, and take its settings."""
        tasks = sorted({TASK_OF_KIND[concept.kind] for concept in concepts})
        if len(tasks) > 1 and self.task is None:
            raise NotApplicable(
                f"MACE's settings are for concepts of one kind, not of {' and '.join(tasks)}; choose one by task"
            )
        task = self.task or tasks[0]
        settings = dict(TASKS[task])
        if task == "object" and len(concepts) == 1:
            settings["lamb"] = OBJECT_LAMB.get(concepts[0].name, settings["lamb"])
        if task == "celebrity":
            scales = CELEBRITY_DOMAIN_SCALES
            settings["domain_scale"] = scales[next((n for n in scales if len(concepts) <= n), max(scales))]
        return replace(self, task=task).filled(settings)

    def identity(self) -> dict[str, str]:
        """The hash of the file of captions.

        Raises:
            EraseBenchError: there is no such file.
        """
        return {"prior": hash_file_once(self._file())} if self._reads_file() else {}

    def judges(self, domain: str, concepts: Sequence[Concept]) -> tuple[str, ...]:
        """The segmenter; none for styles, which have no region."""
        return () if all(concept.kind == "style" for concept in concepts) else (DOMAINS[domain].segmenter,)

    def check(self, domain: str, concepts: Sequence[Concept]) -> None:
        """Each concept needs an anchor that is not erased, and something has to say what to preserve."""
        for concept in concepts:
            if not concept.anchor:
                raise NotApplicable(f"{concept.name} has no anchor to be mapped to")
        check_anchors(concepts, [(concept, concept.anchor) for concept in concepts])
        lamb, scales = decided(self.lamb), (decided(self.refinement_prior_scale), decided(self.fusion_prior_scale))
        if lamb > 0 and not any(scales):
            return
        if self.prior == "captions" and DOMAINS[domain].world is None:
            raise NotApplicable(
                "MACE needs captions of what to preserve, such as COCO's: give prior=FILE with one on each line"
            )
        preserves = self.prior not in ("none", "neighbours") or (
            self.prior == "neighbours" and decided(self.domain_scale) > 0 and bool(retained(concepts))
        )
        if lamb == 0 and not (preserves and all(scales)):
            raise NotApplicable("nothing tells MACE what to preserve: give a lamb, or a prior and scales for it")

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts."""
        self.check(model.domain, concepts)
        rng = torch.Generator("cpu").manual_seed(context.seed)
        targets = [
            (concept, EmbeddedPrompts.of(model, templates_of(concept), phrase, concept.anchor))
            for concept in concepts
            for phrase in (concept.phrase, *(concept.synonyms if self.synonyms else ()))
        ]
        layers = [name.removesuffix(".weight") for name in select_parameters(model.unet, "xattn-kv")]
        weights = {layer: model.unet.get_submodule(layer).weight for layer in layers}
        old = {layer: weight.detach().cpu().double() for layer, weight in weights.items()}
        lamb, prior = decided(self.lamb), self.prior_moment(model, concepts)
        first_scale, second_scale = decided(self.refinement_prior_scale), decided(self.fusion_prior_scale)
        if self.prior_scale_mode == "official":
            first_scale **= 2
        all_prompts = [prompts for _, prompts in targets]
        mapped, around = [prompts.mapped for prompts in all_prompts], [prompts.around for prompts in all_prompts]
        refining = refinement(mapped, around, first_scale * prior, lamb)
        refined = {layer: weight @ refining for layer, weight in old.items()}
        images = [self.draw_images(model, concept, prompts.phrase, context, rng) for concept, prompts in targets]
        trace = Trace(context, decided(self.steps) * len(targets))
        changes = {layer: torch.zeros_like(weight) for layer, weight in old.items()}
        with model.erased(whole(refined, weights)), training_attention(model.device):
            for prompts, (latents, masks) in zip(all_prompts, images, strict=True):
                factors = self.train(model, layers, prompts, latents, masks, rng, trace)
                for layer, (up, down) in factors.items():
                    changes[layer] += up.cpu().double() @ (down.cpu().double() @ prompts.moment)
        moment = sum((prompts.moment for prompts in all_prompts), torch.zeros_like(prior))
        new = {
            layer: fused(refined[layer], old[layer], changes[layer], moment, second_scale * prior, lamb)
            for layer in layers
        }
        return whole(new, weights, tuple(trace.rows))

    def prior_moment(self, model: DiffusionModel, concepts: Sequence[Concept]) -> Tensor:
        """``sum e_p e_p^T`` of what is to be preserved, before lambda (eq. 19): float64 ``[width, width]``."""
        width = model.unet.config.cross_attention_dim
        prior = torch.zeros(width, width, dtype=torch.float64)
        if self.prior == "none" or not (self.refinement_prior_scale or self.fusion_prior_scale):
            return prior
        neighbours = retained(concepts)
        templates = templates_of(concepts[0])
        for prompts, scale, tokens in (
            (self.captions(model, concepts), 1.0, PUBLISHED_TOKENS),
            (
                [template.format(phrase) for phrase in neighbours for template in templates],
                decided(self.domain_scale),
                PUBLISHED_DOMAIN_TOKENS,
            ),
        ):
            if prompts and scale:
                total, count = text_moment(model, prompts)
                prior += scale * total * (tokens / count if self.prior_sums == "published" else 1.0)
        return prior

    def captions(self, model: DiffusionModel, concepts: Sequence[Concept]) -> list[str]:
        """Captions of the prior that do not name the concepts."""
        if self.prior == "neighbours":
            return []
        if not self._reads_file():
            world = DOMAINS[model.domain].world
            return list(islice(world_captions(world, concepts), CAPTIONS)) if world else []
        lines = [line for line in read_lines(str(self._file())) if not names(line, concepts)]
        if not lines:
            raise EraseBenchError(f"prior: {self.prior} holds no caption that does not name what is erased")
        return lines

    def _reads_file(self) -> bool:
        return self.prior not in ("captions", "neighbours", "none")

    def _file(self) -> Path:
        path = Path(self.prior)
        if not path.is_file():
            raise EraseBenchError(f"prior: {path} is no file; give one with captions, or captions, neighbours or none")
        return path

    def draw_images(
        self, model: DiffusionModel, concept: Concept, phrase: str, context: EraseContext, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images of a concept as latents ``[n, c, h, w]``, and where they show it: ``[n, height, width]``, 0 or 1."""
        sampler = Sampler(self.sampler, self.sampling_steps, self.guidance_scale)
        latents = training_latents(model, [image_prompt(concept, phrase)] * self.pictures, sampler, rng)
        if concept.kind == "style":
            return latents, torch.ones(len(latents), *latents.shape[2:], device=model.device)
        segmenter = context.judge(DOMAINS[model.domain].segmenter)
        scores = segmenter.scores(model.decode(latents), [concept.phrase] * len(latents))
        masks = torch.from_numpy(scores.arrays["mask"]).to(model.device)
        return latents, masks.where(masks.amax((1, 2), keepdim=True) > 0, torch.ones_like(masks))

    def train(
        self,
        model: DiffusionModel,
        layers: Sequence[str],
        prompts: EmbeddedPrompts,
        latents: Tensor,
        masks: Tensor,
        rng: torch.Generator,
        trace: Trace,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The LoRA of a concept on the refined model: layer -> (up, down)."""
        total = model.timestep_count
        density = torch.ones(total, dtype=torch.float64)
        if self.importance_sampling:
            density = focal_density(total, self.interval_start, self.interval_end, self.temperature)
        suppressed = prompts.own.clone()
        if self.use_pooler:
            suppressed |= prompts.ends
        seed = int(torch.randint(2**31, (), generator=rng))
        # peft's "gaussian" has the standard deviation 1 / r, as the code's N(0, 1 / r).
        adapted = Adapters(model.unet, layers, self.rank, seed, gaussian=True)
        with cross_attention_maps(model.unet) as maps, adapted as adapters:
            rate, steps = decided(self.learning_rate), decided(self.steps)
            adam = torch.optim.AdamW(adapters.parameters, lr=rate, weight_decay=self.weight_decay)
            for _ in range(steps):
                image = torch.randint(len(latents), (self.batch_size,), generator=rng)
                prompt = torch.randint(len(prompts.text), (self.batch_size,), generator=rng)
                t = torch.multinomial(density, self.batch_size, replacement=True, generator=rng).to(model.device)
                x, t, _ = noisy(model, latents[image], rng, t)
                maps.clear()
                model.predict(x, t, prompts.text[prompt])
                loss = attention_loss(maps, masks[image], suppressed[prompt], self.loss == "paper")
                trace.step(loss=loss.item(), concept=prompts.phrase)
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(adapters.parameters, 1.0)
                adam.step()
            factors: dict[str, tuple[Tensor, Tensor]] = adapters.factors()
        return factors


def templates_of(concept: Concept) -> Sequence[str]:
    """The prompts around a concept, with ``{}`` in its place."""
    templates: Sequence[str] = SETTINGS["styles" if concept.kind == "style" else "things"]
    return templates


def image_prompt(concept: Concept, phrase: str) -> str:
    """The prompt of the images of a wording of a concept."""
    if concept.kind == "style":
        return f"a photo in the style of {phrase}"
    return f"a photo of the {phrase}" if concept.kind == "object" else f"a photo of {phrase}"


def whole(
    values: Mapping[str, Tensor], weights: Mapping[str, Tensor], trace: tuple[Mapping[str, float | str], ...] = ()
) -> Erasure:
    """New values of layers' weights as an erasure, in the weights' own precision."""
    return Erasure({f"unet.{layer}.weight": v.to(weights[layer].dtype) for layer, v in values.items()}, trace=trace)


def focal_density(timesteps: int, start: float, end: float, temperature: float) -> Tensor:
    """Concept-focal importance sampling (eq. 5), not normalised: float64 ``[timesteps]``.

    ``sigma(gamma (t - t_1)) - sigma(gamma (t - t_2))``.
    """
    t = torch.arange(timesteps, dtype=torch.float64)
    return torch.sigmoid(temperature * (t - start)) - torch.sigmoid(temperature * (t - end))
