"""MACE: Mass Concept Erasure in Diffusion Models (Lu et al., CVPR 2024).

Three stages, all on the key and value projections of the cross-attention: a closed form takes what a concept leaves in
the words around it out of them (eq. 2); one LoRA for each concept then suppresses the attention that pictures pay to
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
begin or end with count as words around them); pictures go to the U-Net as the latents that they were sampled as,
without a VAE in between, uncropped; captions that name a concept are left out of the prior; the closed forms are
solved in float64; where the segmenter finds nothing in a picture, its whole attention map counts (for abstract
concepts the author suggests this); a synonym's pictures are segmented by the concept's phrase; violent and
inappropriate concepts take the settings of nudity, the only such concept of the paper. For styles the whole map always
counts, as in the paper's experiments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.judges.weights_files import file_sha256
from erasebench.method import EraseContext, check_positive, check_sampling
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.adapters import Adapters
from erasebench.training.attention import cross_attention_maps
from erasebench.training.latents import noisy, training_latents
from erasebench.training.parameters import select_parameters, training_attention
from erasebench.training.text_files import read_lines
from erasebench.training.trace import Trace
from erasebench.training.words import erased_anchor

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Task = Literal["object", "celebrity", "artist", "explicit"]

TASKS: dict[Task, Mapping[str, Any]] = {
    # The published lamb are 1e3 (ship), 1e2 (automobile) and 1e1 (bird).
    "object": {
        "lamb": 1e2,
        "refinement_prior_scale": 0.0,
        "fusion_prior_scale": 0.0,
        "domain_scale": 0.0,
        "steps": 50,
        "learning_rate": 1e-5,
        "importance_sampling": True,
        "synonyms": False,
    },
    "celebrity": {
        "lamb": 0.0,
        "refinement_prior_scale": 1e-4,
        "fusion_prior_scale": 1e-4,
        "steps": 50,
        "learning_rate": 1e-4,
        "importance_sampling": True,
        "synonyms": False,
    },
    "artist": {
        "lamb": 0.0,
        "refinement_prior_scale": 1e-4,
        "fusion_prior_scale": 1e-4,
        "domain_scale": 8e4,
        "steps": 50,
        "learning_rate": 1e-4,
        "importance_sampling": True,
        "synonyms": False,
    },
    # "nudity, naked, erotic, sexual" are four concepts here, as the catalogue's synonyms of nudity.
    "explicit": {
        "lamb": 0.0,
        "refinement_prior_scale": 7e-7,
        "fusion_prior_scale": 7e-7,
        "domain_scale": 0.0,
        "steps": 120,
        "learning_rate": 1e-5,
        "importance_sampling": False,
        "synonyms": True,
    },
}
"""What an option that is left at None means, for each task of the paper."""
SEGMENTERS = {"picturebook": "picturebook-segmenter", "photo": "grounded-sam"}
"""The judge that finds a concept in a picture, for each domain."""
OBJECT_LAMB = {"ship": 1e3, "automobile": 1e2, "bird": 1e1}
"""The three objects whose ``lamb`` was published, when erased alone."""
TIMESTEPS = 1000
"""Of the schedule that Stable Diffusion and Picturebook were trained with."""
CELEBRITY_DOMAIN_SCALES = {1: 8e3, 5: 5e4, 10: 8e4}
"""``domain_scale`` for up to so many celebrities; 2e5 for more."""
TASK_OF_KIND: dict[str, Task] = {
    "object": "object",
    "phrase": "object",
    "character": "celebrity",
    "style": "artist",
    "explicit": "explicit",
    "violence": "explicit",
    "inappropriate": "explicit",
}

PUBLISHED_TOKENS = 4.7e7
"""Tokens in the code's sums over COCO's captions: 617,000 captions of 77."""
PUBLISHED_DOMAIN_TOKENS = 7700.0
"""Tokens in its sums over names to retain, if that is one prompt for each of the paper's 100; not published."""
CAPTIONS = 1000
"""How many captions of Picturebook's world make its prior."""

THINGS = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a painting of {}",
    "a sketch of {}",
    "a poster of {}",
    "a portrait of {}",
    "a snapshot of {}",
    "a postcard that shows {}",
    "a scene with {}",
    "here is {}",
    "we see {}",
    "look at {}, how nice",
    "a close look at {}",
    "a view of {} from afar",
    "a detailed picture of {}, high quality",
    "a bright picture of {} in the morning",
    "an old photo of {} in black and white",
    "an illustration of {} for a children's book",
    "{} on a sunny day",
    "{} at night",
    "{} in the snow",
    "{} on the beach",
    "{} in the forest",
    "{} in the mountains",
    "{} in a city street",
    "{} against a plain wall",
    "in the distance there is {}",
)
STYLES = (
    "{}",
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "a sketch in the style of {}",
    "an illustration in the style of {}",
    "a landscape in the style of {}",
    "a portrait in the style of {}",
    "a still life in the style of {}",
    "a city street in the style of {}",
    "a forest in the style of {}",
    "a house on a hill in the style of {}",
    "a ship at sea in the style of {}",
    "a bowl of fruit in the style of {}",
    "a dog in the style of {}",
    "a woman with a hat in the style of {}",
    "a quiet evening in the style of {}",
    "a painting by {}",
    "a drawing by {}",
    "a print by {}",
    "a work of art by {}",
    "a well-known work by {}",
    "an early work by {}",
    "a picture made by {}",
    "art after {}",
    "art that looks like {}",
    "a copy of a work by {}",
    "a museum wall with works by {}",
    "{}, a study in colors",
    "{} style, highly detailed",
)
"""Prompts around a concept and its mapping; this project's own."""


@METHODS.register("mace")
@dataclass(frozen=True)
class MACE:
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
        batch_size: pictures in a gradient step.
        rank: of each LoRA.
        importance_sampling: draw timesteps from eq. 5 (CFIS) instead of uniformly.
        interval_start: t_1 of eq. 5.
        interval_end: t_2 of eq. 5.
        temperature: gamma of eq. 5.
        synonyms: erase the concepts' synonyms as concepts of their own.
        pictures: pictures of each concept.
        sampler: of these.
        sampling_steps: of these.
        guidance_scale: of these.
    """

    task: Task | None = None
    lamb: float | None = None
    refinement_prior_scale: float | None = None
    fusion_prior_scale: float | None = None
    domain_scale: float | None = None
    prior: str = "captions"
    prior_sums: Literal["published", "plain"] = "published"
    prior_scale_mode: Literal["paper", "official"] = "paper"
    loss: Literal["official", "paper"] = "official"
    use_pooler: bool = True
    steps: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    batch_size: int = 1
    rank: int = 1
    importance_sampling: bool | None = None
    interval_start: float = 200.0
    interval_end: float = 400.0
    temperature: float = 0.05
    synonyms: bool | None = None
    pictures: int = 8
    sampler: str = "dpm-solver++"
    sampling_steps: int = 30
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        check_positive(self, "steps", "learning_rate", "batch_size", "rank", "temperature", "pictures")
        check_sampling(self)
        for name in ("lamb", "refinement_prior_scale", "fusion_prior_scale", "domain_scale", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise EraseBenchError(f"{name} must not be negative, but is {value}")
        if not 0 <= self.interval_start < min(self.interval_end, TIMESTEPS):
            raise EraseBenchError(
                f"interval_start must be from 0 to below interval_end and {TIMESTEPS}, not {self.interval_start} to "
                f"{self.interval_end}"
            )
        Sampler(self.sampler, self.sampling_steps)

    def option(self, name: str, concepts: Sequence[Concept]) -> Any:
        """An option, or what its None means for these concepts."""
        value = getattr(self, name)
        if value is not None:
            return value
        task = self.task or TASK_OF_KIND[concepts[0].kind]
        if name == "lamb" and task == "object" and len(concepts) == 1:
            return OBJECT_LAMB.get(concepts[0].name, TASKS[task]["lamb"])
        if name == "domain_scale" and task == "celebrity":
            return next((w for number, w in CELEBRITY_DOMAIN_SCALES.items() if len(concepts) <= number), 2e5)
        return TASKS[task][name]

    def identity(self) -> dict[str, str]:
        """The hash of the file of captions.

        Raises:
            EraseBenchError: there is no such file.
        """
        return {"prior": file_sha256(self._file())} if self._reads_file() else {}

    def judges(self, domain: str, concepts: Sequence[Concept]) -> tuple[str, ...]:
        """The segmenter; none for styles, which have no region."""
        return () if all(concept.kind == "style" for concept in concepts) else (SEGMENTERS[domain],)

    def why_not(self, domain: str, concepts: Sequence[Concept]) -> str | None:
        """Concepts of several tasks, one mapped to itself, or nothing to preserve what is not erased."""
        tasks = sorted({TASK_OF_KIND[concept.kind] for concept in concepts})
        if len(tasks) > 1 and self.task is None:
            return f"MACE's settings are for concepts of one kind, not of {' and '.join(tasks)}; choose one by task"
        for concept in concepts:
            if not concept.anchor:
                return f"{concept.name} has no anchor to be mapped to"
        reason: str | None = erased_anchor(concepts, [(concept, concept.anchor) for concept in concepts])
        if reason:
            return reason
        scales = [self.option(name, concepts) for name in ("refinement_prior_scale", "fusion_prior_scale")]
        if self.option("lamb", concepts) > 0 and not any(scales):
            return None
        if self.prior == "captions" and domain != "picturebook":
            return "MACE needs captions of what to preserve, such as COCO's: give prior=FILE with one on each line"
        preserves = self.prior not in ("none", "neighbours") or (
            self.prior == "neighbours" and self.option("domain_scale", concepts) > 0 and bool(retained(concepts))
        )
        if self.option("lamb", concepts) == 0 and not (preserves and all(scales)):
            return "nothing tells MACE what to preserve: give a lamb, or a prior and scales for it"
        return None

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts."""
        reason = self.why_not(model.domain, concepts)
        if reason:
            raise EraseBenchError(reason)
        rng = torch.Generator("cpu").manual_seed(context.seed)
        targets = [
            Prompts.of(model, phrase, concept)
            for concept in concepts
            for phrase in (concept.phrase, *(concept.synonyms if self.option("synonyms", concepts) else ()))
        ]
        layers = [name.removesuffix(".weight") for name in select_parameters(model.unet, "xattn-kv")]
        weights = {layer: model.unet.get_submodule(layer).weight for layer in layers}
        old = {layer: weight.detach().cpu().double() for layer, weight in weights.items()}
        lamb, prior = self.option("lamb", concepts), self.prior_moment(model, concepts)
        first_scale, second_scale = (
            self.option(name, concepts) for name in ("refinement_prior_scale", "fusion_prior_scale")
        )
        if self.prior_scale_mode == "official":
            first_scale **= 2
        refinement = refine(targets, first_scale * prior, lamb)
        refined = {layer: weight @ refinement for layer, weight in old.items()}
        pictures = [self.draw_pictures(model, target, context, rng) for target in targets]
        trace = Trace(context, self.option("steps", concepts) * len(targets))
        changes = {layer: torch.zeros_like(weight) for layer, weight in old.items()}
        with model.erased(whole(refined, weights)), training_attention(model.device):
            for target, (latents, masks) in zip(targets, pictures, strict=True):
                factors = self.train(model, layers, target, latents, masks, concepts, rng, trace)
                for layer, (up, down) in factors.items():
                    changes[layer] += up.cpu().double() @ (down.cpu().double() @ target.moment)
        moment = sum((target.moment for target in targets), torch.zeros_like(prior))
        fused = {
            layer: fuse(refined[layer], old[layer], changes[layer], moment, second_scale * prior, lamb)
            for layer in layers
        }
        return whole(fused, weights, tuple(trace.rows))

    def prior_moment(self, model: DiffusionModel, concepts: Sequence[Concept]) -> Tensor:
        """``sum e_p e_p^T`` of what is to be preserved, before lambda (eq. 19): float64 ``[width, width]``."""
        width = model.unet.config.cross_attention_dim
        prior = torch.zeros(width, width, dtype=torch.float64)
        scales = ("refinement_prior_scale", "fusion_prior_scale")
        if self.prior == "none" or not any(self.option(name, concepts) for name in scales):
            return prior
        neighbours = retained(concepts)
        templates = STYLES if concepts[0].kind == "style" else THINGS
        for prompts, scale, tokens in (
            (self.captions(model, concepts), 1.0, PUBLISHED_TOKENS),
            (
                [template.format(phrase) for phrase in neighbours for template in templates],
                self.option("domain_scale", concepts),
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
            return list(islice(world_captions(concepts), CAPTIONS))
        found = [line for line in read_lines(str(self._file())) if not names(line, concepts)]
        if not found:
            raise EraseBenchError(f"prior: {self.prior} holds no caption that does not name what is erased")
        return found

    def _reads_file(self) -> bool:
        return self.prior not in ("captions", "neighbours", "none")

    def _file(self) -> Path:
        path = Path(self.prior)
        if not path.is_file():
            raise EraseBenchError(f"prior: {path} is no file; give one with captions, or captions, neighbours or none")
        return path

    def draw_pictures(
        self, model: DiffusionModel, target: Prompts, context: EraseContext, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Pictures of a concept as latents ``[n, c, h, w]``, and where they show it: ``[n, height, width]``, 0 or 1."""
        sampler = Sampler(self.sampler, self.sampling_steps, self.guidance_scale)
        latents = training_latents(model, [target.picture] * self.pictures, sampler, rng)
        if target.segment is None:
            return latents, torch.ones(len(latents), *latents.shape[2:], device=model.device)
        segmenter = SEGMENTERS[model.domain]
        found = context.judge(segmenter).scores(model.decode(latents), [target.segment] * len(latents))
        masks = torch.from_numpy(found.arrays["mask"]).to(model.device)
        return latents, masks.where(masks.amax((1, 2), keepdim=True) > 0, torch.ones_like(masks))

    def train(
        self,
        model: DiffusionModel,
        layers: Sequence[str],
        target: Prompts,
        latents: Tensor,
        masks: Tensor,
        concepts: Sequence[Concept],
        rng: torch.Generator,
        trace: Trace,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The LoRA of a concept on the refined model: layer -> (up, down)."""
        total = model.timestep_count
        density = torch.ones(total, dtype=torch.float64)
        if self.option("importance_sampling", concepts):
            density = focal_density(total, self.interval_start, self.interval_end, self.temperature)
        suppressed = target.own.clone()
        if self.use_pooler:
            suppressed |= target.ends
        seed = int(torch.randint(2**31, (), generator=rng))
        # peft's "gaussian" has the standard deviation 1 / r, as the code's N(0, 1 / r).
        adapted = Adapters(model.unet, layers, self.rank, seed, gaussian=True)
        with cross_attention_maps(model.unet) as maps, adapted as adapters:
            adam = torch.optim.AdamW(
                adapters.parameters, lr=self.option("learning_rate", concepts), weight_decay=self.weight_decay
            )
            for _ in range(self.option("steps", concepts)):
                picture = torch.randint(len(latents), (self.batch_size,), generator=rng)
                prompt = torch.randint(len(target.text), (self.batch_size,), generator=rng)
                t = torch.multinomial(density, self.batch_size, replacement=True, generator=rng).to(model.device)
                x, t, _ = noisy(model, latents[picture], rng, t)
                maps.clear()
                model.predict(x, t, target.text[prompt])
                loss = attention_loss(maps, masks[picture], suppressed[prompt], self.loss == "paper")
                trace.step(loss=loss.item(), concept=target.phrase)
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(adapters.parameters, 1.0)
                adam.step()
            factors: dict[str, tuple[Tensor, Tensor]] = adapters.factors()
        return factors


@dataclass(frozen=True)
class Prompts:
    """The prompts around one phrase to erase, and what the closed forms need of them.

    Attributes:
        phrase: what is erased.
        picture: the prompt of its pictures.
        segment: what the segmenter looks for in them; None for the whole picture.
        text: the prompts, embedded: ``n`` of them.
        own: bool ``[n, length]``: the phrase's own tokens.
        ends: bool ``[n, length]``: tokens with the id of the end of text.
        moment: ``sum e e^T`` over all tokens of all prompts, float64 ``[width, width]`` (eq. 7).
        around: ``sum e_f e_f^T`` over the tokens around the phrase (eq. 2).
        mapped: ``sum e_g e_f^T`` of the same tokens around the mapping (eq. 2).
    """

    phrase: str
    picture: str
    segment: str | None
    text: Conditioning
    own: Tensor
    ends: Tensor
    moment: Tensor
    around: Tensor
    mapped: Tensor

    @classmethod
    def of(cls, model: DiffusionModel, phrase: str, concept: Concept) -> Prompts:
        """The prompts around a wording of a concept."""
        style = concept.kind == "style"
        templates = STYLES if style else THINGS
        prompts = [template.format(phrase) for template in templates]
        with torch.no_grad():
            text = model.embed(prompts)
            other = model.embed([template.format(concept.anchor) for template in templates]).embeddings.cpu().double()
        every = text.embeddings.cpu().double()
        ids = model.token_ids(prompts)
        own = torch.zeros_like(ids, dtype=torch.bool)
        keys, values = [], []
        for row, (template, e, g) in enumerate(zip(templates, every, other, strict=True)):
            start, stop = span(model, template, phrase)
            own[row, start:stop] = True
            key, value = coexisting(e, g, (start, stop), span(model, template, concept.anchor))
            keys.append(key)
            values.append(value)
        every = every.flatten(0, 1)
        f, mapped = torch.cat(keys), torch.cat(values)
        picture = "a photo in the style of {}" if style else THINGS[1]
        return cls(
            phrase,
            picture.format(f"the {phrase}" if concept.kind == "object" else phrase),
            None if style else concept.phrase,
            text,
            own,
            ids == model.tokenizer.eos_token_id,
            every.T @ every,
            f.T @ f,
            mapped.T @ f,
        )


def span(model: DiffusionModel, template: str, phrase: str) -> tuple[int, int]:
    """Where a phrase's tokens start and stop in a template that holds it, the start token counted."""
    before, _, _ = template.partition("{}")
    length = model.tokenizer.model_max_length
    first, own = (len(model.tokenizer(text, add_special_tokens=False).input_ids) for text in (before, phrase))
    return min(1 + first, length), min(1 + first + own, length)


def coexisting(
    concept: Tensor, mapping: Tensor, span_concept: tuple[int, int], span_mapping: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The embeddings of the words around a concept, and of the same words around its mapping, one to one.

    Args:
        concept: embeddings ``[length, width]`` of a prompt with the concept.
        mapping: those of the prompt with the mapping in its place.
        span_concept: where the concept's own tokens start and stop.
        span_mapping: where the mapping's do; both start at the same place.

    Returns:
        ``e_f`` and ``e_g`` (eq. 1), each ``[n, width]``: what stands before, and what stands behind up to the end of
        the padding, as far as both have it.
    """
    start, rest = span_concept[0], len(concept) - max(span_concept[1], span_mapping[1])
    parts = [
        torch.cat([e[:start], e[stop : stop + rest]])
        for e, (_, stop) in ((concept, span_concept), (mapping, span_mapping))
    ]
    return parts[0], parts[1]


def refine(targets: Sequence[Prompts], prior: Tensor, lamb: float) -> Tensor:
    """What the old matrices are multiplied with from the right to become the refined ones (eq. 2 and 19).

    ``W' = W (sum e_g e_f^T + P + lamb I) (sum e_f e_f^T + P + lamb I)^-1`` minimises ``sum |W' e_f - W e_g|^2 +
    sum_p |(W' - W) e_p|^2 + lamb |W' - W|^2``: what stands on the right is the same for all layers.

    Args:
        targets: all concepts.
        prior: ``P = sum e_p e_p^T``, scaled by lambda_1.
        lamb: see above.
    """
    stay = prior + lamb * torch.eye(len(prior), dtype=torch.float64)
    mapped = sum((target.mapped for target in targets), stay)
    around = sum((target.around for target in targets), stay)
    return solve(around, mapped)


def fuse(refined: Tensor, old: Tensor, changes: Tensor, moment: Tensor, prior: Tensor, lamb: float) -> Tensor:
    """The matrix that does for each concept what its LoRA does: the minimum of eq. 7 plus ``lamb |W* - W'|^2``.

    Args:
        refined: ``W' [out, width]``.
        old: ``W``, which the prior keeps.
        changes: ``sum_i Delta W_i sum_j e_j e_j^T``, over all tokens j of the prompts of concept i.
        moment: ``sum_i sum_j e_j e_j^T``.
        prior: ``sum e_p e_p^T``, scaled by lambda_2.
        lamb: see above.
    """
    stay = moment + lamb * torch.eye(len(prior), dtype=torch.float64)
    return solve(stay + prior, refined @ stay + changes + old @ prior)


def solve(right: Tensor, left: Tensor) -> Tensor:
    """``left @ right^-1``.

    Raises:
        EraseBenchError: there is no inverse.
    """
    try:
        solution: Tensor = torch.linalg.solve(right, left, left=False)
    except RuntimeError:
        raise EraseBenchError("MACE's prompts leave its matrices undetermined: give a lamb or a prior") from None
    return solution


def whole(
    values: Mapping[str, Tensor], weights: Mapping[str, Tensor], trace: tuple[Mapping[str, float | str], ...] = ()
) -> Erasure:
    """New values of layers' weights as an erasure, in the weights' own precision."""
    return Erasure({f"unet.{layer}.weight": v.to(weights[layer].dtype) for layer, v in values.items()}, trace=trace)


def text_moment(model: DiffusionModel, prompts: Sequence[str]) -> tuple[Tensor, int]:
    """``sum e e^T`` over all tokens of the prompts, padding included: float64 ``[width, width]``; and their number."""
    width = model.unet.config.cross_attention_dim
    total, count = torch.zeros(width, width, dtype=torch.float64), 0
    for start in range(0, len(prompts), 64):
        with torch.no_grad():
            e = model.embed(prompts[start : start + 64]).embeddings.cpu().double().flatten(0, 1)
        total += e.T @ e
        count += len(e)
    return total, count


def world_captions(concepts: Sequence[Concept]) -> Iterator[str]:
    """Captions of Picturebook's training scenes that do not show the concepts; no reported number uses them."""
    import numpy as np

    from erasebench.picturebook.world.captions import caption
    from erasebench.picturebook.world.scene import sample_scene

    erased = {concept.name for concept in concepts}
    for seed in range(100 * CAPTIONS):
        scene = sample_scene(seed)
        text = caption(scene, np.random.default_rng(seed))
        if erased.isdisjoint({scene.style, *(subject.label for subject in scene.subjects)}) and not names(
            text, concepts
        ):
            yield text


def retained(concepts: Sequence[Concept]) -> list[str]:
    """The phrases of the concepts' neighbours, without those that are erased themselves."""
    neighbours = dict.fromkeys(phrase for concept in concepts for phrase in concept.neighbours_phrases)
    return [phrase for phrase in neighbours if not names(phrase, concepts)]


def names(text: str, concepts: Sequence[Concept]) -> bool:
    """Whether a text names one of the concepts or a synonym, in whole words."""
    words = [re.escape(word) for concept in concepts for word in (concept.phrase, *concept.synonyms)]
    return re.search(rf"(?<!\w)({'|'.join(words)})(?!\w)", text, re.IGNORECASE) is not None


def focal_density(timesteps: int, start: float, end: float, temperature: float) -> Tensor:
    """Concept-focal importance sampling (eq. 5), not normalised: float64 ``[timesteps]``.

    ``sigma(gamma (t - t_1)) - sigma(gamma (t - t_2))``.
    """
    t = torch.arange(timesteps, dtype=torch.float64)
    return torch.sigmoid(temperature * (t - start)) - torch.sigmoid(temperature * (t - end))


def attention_loss(maps: Sequence[Tensor], masks: Tensor, tokens: Tensor, squared: bool) -> Tensor:
    """Attention to some tokens, where pictures show the concept (eq. 3), mean over the pictures.

    Args:
        maps: of each layer, attention probabilities ``[n, heads, pixels, length]``.
        masks: ``[n, height, width]`` of square pictures, 0 or 1; resized to each layer by nearest neighbours.
        tokens: bool ``[n, length]``.
        squared: sum squared Frobenius norms over the layers, instead of norms.
    """
    total = torch.zeros(len(masks), device=masks.device)
    for attention in maps:
        side = math.isqrt(attention.shape[2])
        inside = functional.interpolate(masks[:, None], size=(side, side), mode="nearest") > 0.5
        chosen = attention.float() * inside.view(-1, 1, side * side, 1) * tokens[:, None, None]
        norms = torch.linalg.vector_norm(chosen, dim=(1, 2, 3))
        total = total + (norms.square() if squared else norms)
    return total.mean()
