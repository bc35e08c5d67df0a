"""CA: Ablating Concepts in Text-to-Image Diffusion Models (Kumari et al., ICCV 2023), model-based and noise-based.

Settings are those of the diffusers code at github.com/nupurkmr9/concept-ablation.  For nudity these came after the
paper, and ablate the one target "nudity, nsfw", which also is the negative prompt of the anchor's images.

Deviations: the captions that the code ships (from LAION, or written by ChatGPT) are replaced by captions built from the
concept's anchor, or by a text file of the user's.  Images are kept as latents, without a round trip through the VAE;
they are not shrunk or zoomed, and the loss takes in all of them (the code leaves out the outermost latents).  Prior
preservation uses the images of the same step, not others.  The code samples at random (DDIM's eta is 1) where the
sampler can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.grammar import with_article
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, decided
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.latents import noisy, training_latents
from erasebench.training.parameters import Pattern, TwoWeights, select_parameters, training_attention
from erasebench.training.text_files import file_identity, read_lines
from erasebench.training.trace import Trace
from erasebench.training.words import check_anchors

if TYPE_CHECKING:
    from erasebench.concepts import Concept

PUBLISHED: Mapping[bool, Mapping[str, Any]] = {
    False: {
        "parameters": "xattn-kv",
        "steps": 100,
        # 2e-6 an image, with 4 images on each of 2 GPUs.
        "learning_rate": 1.6e-5,
        "prior_weight": 0.0,
        "avoid_concept": False,
        "targets": "phrase",
    },
    True: {
        "parameters": "attn",
        "steps": 400,
        # 4e-6 an image, with 4 images and as many for prior preservation on each of 2 GPUs.
        "learning_rate": 6.4e-5,
        "prior_weight": 1.0,
        "avoid_concept": True,
        "targets": "published",
    },
}
"""The meaning of an option that is left at None: whether a concept is explicit -> option -> value."""

TARGETS = {"nudity": "nudity, nsfw"}
"""The published words of concepts, by name, where they are others than the phrase."""
REPLACED = ("object", "character", "phrase")
"""Kinds of concepts whose words take the place of the anchor's in a caption; others are added to it."""

CAPTIONS = ("a photo of {}", "a picture of {}", "an image of {}", "a painting of {}", "a drawing of {}", "{}")
PLACES = (
    "", "on the beach", "in the city", "in the forest", "in the mountains", "in the snow", "in a green field",
    "at night", "in the desert", "indoors",
)  # fmt: skip
SUBJECTS = (
    "a man", "a woman", "a child", "a dog", "a bird", "a fish", "a tree", "a house", "a boat", "a car", "a ball",
    "a table", "a flower", "a bridge", "an old man", "a city", "a beach", "a forest", "a mountain", "a meadow",
)  # fmt: skip

_ARTICLE = re.compile(r"an? ", re.IGNORECASE)


@METHODS.register("ca")
@dataclass(frozen=True)
class ConceptAblation(Method):
    """Fine-tune the model to predict, for prompts of the concept, what it predicts for those of an anchor.

    Options that are None take what was published for explicit concepts if one of the concepts is explicit, or else what
    was published for styles and objects (see :data:`PUBLISHED`).

    Attributes:
        parameters: what is trained: the keys and values of the cross-attention, both attentions, or everything.
        loss: ``model``: the concept's prediction approaches the anchor's.  ``noise``: the true noise, so that the
            anchor's images are learnt under the concept's name.
        anchor_branch: whose prediction for the anchor is approached: that of the model in training (the code), without
            its gradient, or that of the unerased one.
        steps: gradient steps.
        learning_rate: of AdamW, for a whole batch.
        batch_size: images in a gradient step.
        weight_decay: of AdamW.
        max_gradient_norm: to which gradients are clipped.
        erasing_weight: of the loss above; the code's mask has one channel where the latents have four.
        prior_weight: of the usual training loss with the anchor's prompts.
        detach_start: leave the start token out of the gradient of keys and values, where only these are trained.
        targets: the wordings to ablate: the concept's ``phrase``, it and its ``synonyms``, or the ``published`` words
            of :data:`TARGETS`, which are the phrase for anything but nudity.
        anchor_prompts: path of a text file with a caption a line; of objects and the like, each with the anchor's
            words.  If empty, captions are built from the anchor.
        pictures: how many images to draw for each concept.
        avoid_concept: draw them with the concept as negative prompt, in its published words or by its phrase.
        sampler: of the images.
        sampling_steps: for an image.
        guidance_scale: of the images.
    """

    parameters: Literal["xattn-kv", "attn", "full"] | None = None
    loss: Literal["model", "noise"] = "model"
    anchor_branch: Literal["current", "frozen"] = "current"
    steps: Count | None = None
    learning_rate: Positive | None = None
    batch_size: Count = 8
    weight_decay: NonNegative = 1e-2
    max_gradient_norm: Positive = 1.0
    erasing_weight: Positive = 4.0
    prior_weight: NonNegative | None = None
    detach_start: bool = True
    targets: Literal["phrase", "synonyms", "published"] | None = None
    anchor_prompts: str = ""
    pictures: Count = 1000
    avoid_concept: bool | None = None
    sampler: Literal["ddim", "dpm-solver++"] = "dpm-solver++"
    sampling_steps: SamplingSteps = 25
    guidance_scale: NonNegative = 6.0

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Take what was published for the kind of the concepts."""
        return self.filled(PUBLISHED[any(concept.kind == "explicit" for concept in concepts)])

    def identity(self) -> dict[str, str]:
        """SHA-256 of the file of captions, if there is one."""
        return file_identity(self.anchor_prompts) if self.anchor_prompts else {}

    def check(self, domain: str, concepts: Sequence[Concept]) -> None:
        """It needs an anchor in words: to build captions from, or to find in the user's."""
        for concept in concepts:
            if not concept.anchor and (concept.kind in REPLACED or not self.anchor_prompts):
                raise NotApplicable(f"{concept.name} has no anchor")
        check_anchors(concepts, [(concept, concept.anchor) for concept in concepts])

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts, one image of any of them for each row of a step."""
        self.check(model.domain, concepts)
        rng = torch.Generator("cpu").manual_seed(context.seed)
        steps, pattern = decided(self.steps), cast(Pattern, decided(self.parameters))
        prior_weight, frozen = decided(self.prior_weight), self.anchor_branch == "frozen"
        captions, wordings, images = [], [], []
        for concept in concepts:
            known = self.captions(concept)
            drawn = [known[k % len(known)] for k in range(self.pictures)]
            captions += drawn
            wordings += [self.wordings(caption, concept) for caption in drawn]
            # With synonyms, only the phrase is avoided.
            avoided = self.target_words(concept)[0] if self.avoid_concept else ""
            images.append(self.draw(model, drawn, avoided, rng))
        latents = torch.cat(images)
        with torch.no_grad():
            distinct = list(dict.fromkeys([*captions, *(text for texts in wordings for text in texts)]))
            rows = {text: row for row, text in enumerate(distinct)}
            embeddings = model.embed(distinct)
        weights, trace = TwoWeights(select_parameters(model.unet, pattern)), Trace(context, steps)
        detached = start_detached(model.unet) if self.detach_start and pattern == "xattn-kv" else nullcontext()
        with weights, detached, training_attention(model.device):
            trained = list(weights.parameters.values())
            adam = torch.optim.AdamW(trained, lr=decided(self.learning_rate), weight_decay=self.weight_decay)
            for _ in range(steps):
                picked = torch.randint(len(latents), (self.batch_size,), generator=rng).tolist()
                # Wordings are few: the remainder of a large number is as good as uniform.
                of_wording = torch.randint(2**31, (self.batch_size,), generator=rng).tolist()
                chosen = [wordings[k][w % len(wordings[k])] for k, w in zip(picked, of_wording, strict=True)]
                concept_text = embeddings[[rows[text] for text in chosen]]
                anchor_text = embeddings[[rows[captions[k]] for k in picked]]
                x, t, noise = noisy(model, latents[picked], rng)
                target = noise
                if self.loss == "model":
                    with weights.frozen() if frozen else torch.no_grad():
                        target = model.predict_noise(x, t, anchor_text)
                loss = self.erasing_weight * functional.mse_loss(model.predict_noise(x, t, concept_text), target)
                if prior_weight:
                    loss = loss + prior_weight * functional.mse_loss(model.predict_noise(x, t, anchor_text), noise)
                trace.step(loss=loss.item())
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(trained, self.max_gradient_norm)
                adam.step()
        return Erasure({f"unet.{name}": value for name, value in weights.trained.items()}, trace=tuple(trace.rows))

    def captions(self, concept: Concept) -> list[str]:
        """The anchor's prompts.

        Raises:
            EraseBenchError: a caption of the user's lacks the anchor's words, which the concept's shall replace.
        """
        if not self.anchor_prompts:
            if concept.kind == "style":
                return [f"{concept.anchor} of {s} {place}".strip() for place in PLACES for s in SUBJECTS]
            anchor = named(concept.anchor, concept.kind)
            built = [f"{caption.format(anchor)} {place}".strip() for place in PLACES for caption in CAPTIONS]
            # A forest stands in no forest: the concept shall replace the anchor, not the place.
            return [caption for caption in built if len(anchor_pattern(concept.anchor).findall(caption)) == 1]
        captions: list[str] = read_lines(self.anchor_prompts)
        for caption in captions if concept.kind in REPLACED else ():
            if not anchor_pattern(concept.anchor).search(caption):
                raise EraseBenchError(
                    f"{self.anchor_prompts}: '{caption}' does not have the words '{concept.anchor}', which "
                    f"'{concept.phrase}' shall replace"
                )
        return captions

    def target_words(self, concept: Concept) -> tuple[str, ...]:
        """The words to ablate of a concept."""
        if self.targets == "published":
            return (TARGETS.get(concept.name, concept.phrase),)
        return (concept.phrase, *(concept.synonyms if self.targets == "synonyms" else ()))

    def wordings(self, caption: str, concept: Concept) -> list[str]:
        """The wordings of a caption for the concept, equally likely; one that is there twice is twice as likely."""
        wordings = []
        for words in self.target_words(concept):
            if concept.kind == "style":
                wordings += [f"{caption}, in the style of {words}", *[f"in {words}'s style, {caption}"] * 2]
            elif concept.kind in REPLACED:
                wordings.append(replaced(caption, concept.anchor, words, concept.kind))
            else:
                wordings += [f"{words}, {caption}", f"in {words} style, {caption}", f"{caption}, {words}"]
        return wordings

    def draw(self, model: DiffusionModel, captions: Sequence[str], avoided: str, rng: torch.Generator) -> Tensor:
        """The unerased model's images of captions, as latents ``[n, c, h, w]``."""
        sampler = Sampler(self.sampler, self.sampling_steps, self.guidance_scale)
        with model.erased(Erasure(guidance=ClassifierFreeGuidance(avoided))):
            latents: Tensor = training_latents(model, captions, sampler, rng)
        return latents


def named(words: str, kind: str) -> str:
    """Words as a caption names them: objects have an article."""
    return with_article(words) if kind == "object" else words


def anchor_pattern(anchor: str) -> re.Pattern[str]:
    """Finds an anchor in a caption, with its article as the first group."""
    return re.compile(rf"(?<!\w)(an? )?{re.escape(_ARTICLE.sub('', anchor, count=1))}(?!\w)", re.IGNORECASE)


def replaced(caption: str, anchor: str, words: str, kind: str) -> str:
    """The caption with other words in the anchor's place, and with their article if the anchor had one."""
    bare = words[len(article[0]) :] if (article := _ARTICLE.match(words)) else words
    return anchor_pattern(anchor).sub(lambda match: named(words, kind) if match[1] else bare, caption)


@contextmanager
def start_detached(unet: nn.Module) -> Iterator[None]:
    """Inside the block, keys and values of the cross-attention have no gradient through the text's first token."""

    def hook(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return torch.cat([out[:, :1].detach(), out[:, 1:]], dim=1)

    layers = [m for name, m in unet.named_modules() if name.endswith((".attn2.to_k", ".attn2.to_v"))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
