"""AP: Erasing Undesirable Concepts in Diffusion Models with Adversarial Preservation (Bui et al., NeurIPS 2024).

Where paper and code differ, ``variant`` chooses; every choice can also be made by itself (see :data:`VARIANTS`).  Of
these, the gradient of the search matters most: both terms of algorithm 1, the model in training and the frozen one,
depend on the word that is searched, and so does the paper's gradient (``search_gradient="both"``); the code takes the
frozen model's prediction for a constant (``"trained"``).  Near the start of training, where the two models hardly
differ, the two directions have little in common.

What the paper leaves open is the code's in both variants: the temperature; the images that an adversarial word is tried
on (drawn by the model in training for this very word); whether pi holds free logits, as in the code, or is a point on
the simplex, as the paper's Delta says, whose ascent would have to project back onto it; whether pi lasts from one step
of the model to the next, as in the code, or starts anew with each call of algorithm 1, which says nothing of how it
starts; and the optimizer of pi: Adam, since the paper's step of 1e-3 is the default of the code's Adam, while plain
ascent with it hardly moves the logits.  With several concepts, search and step of the model take the same ones (the
code draws them apart).

Deviations: the vocabulary is not the authors' list of 3,000 common English words, which has no licence, but the words
of the model's own tokenizer, of which the first 3,000 are the most frequent (or any list of the user's); it holds some
endings of words as well.  Words are searched for before each step of the model, not after it as in the code.  The
one-dimensional k-means starts from evenly spaced ranks instead of at random.  The frozen model is not a second model
but the same one with the trained parameters swapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, decided
from erasebench.registry import METHODS
from erasebench.sampling import Sampler
from erasebench.training.parameters import Pattern, TwoWeights, select_parameters, training_attention
from erasebench.training.partial_sampling import CutSampling, TimestepMode
from erasebench.training.targets import erased_noise
from erasebench.training.text_files import file_identity, read_lines
from erasebench.training.trace import Trace

if TYPE_CHECKING:
    from erasebench.concepts import Concept

Variant = Literal["paper", "official"]

VARIANTS: dict[Variant, Mapping[str, Any]] = {
    "paper": {
        "selection": "cosine",
        "exclude": "phrases",
        "search_steps": 2,
        "search_optimizer": "adam",
        "search_rate": 1e-3,
        "search_gradient": "both",
        "search_reduction": "sum",
        "negative_guidance": 0.0,
        "loss_space": "noise",
        "timestep_mode": "consistent",
    },
    # github.com/tuananhbui89/Erasing-Adversarial-Preservation, train_adversarial_gumbel.py as its scripts call it.
    "official": {
        "selection": "spread",
        "exclude": "nothing",
        "search_steps": 1,
        "search_optimizer": "adam",
        "search_rate": 1e-2,
        "search_gradient": "trained",
        "search_reduction": "mean",
        "negative_guidance": 1.0,
        "loss_space": "x0",
        "timestep_mode": "official",
    },
}
"""The meaning of an option that is left at None, for each variant."""
WORDS = {"candidates": (50, 100), "nearest": (2000, 1000)}
"""The meaning of these at None: for an explicit concept, and for another."""

TOKENIZER = "tokenizer"
END_OF_WORD = "</w>"
MIN_LETTERS = 3
"""Letters of a word; shorter tokens are mostly endings and abbreviations."""


@METHODS.register("ap-x", parameters="xattn")
@METHODS.register("ap-u", parameters="noxattn")
@dataclass(frozen=True)
class AdversarialPreservation(Method):
    """Fine-tune the model to forget concepts, and to keep whatever word the forgetting harms most at the time.

    Attributes:
        parameters: what is trained; published: ``xattn`` for objects and artists (ap-x), ``noxattn`` for nudity (ap-u).
        variant: whose settings the options that are None take.
        steps: gradient steps of the model.
        learning_rate: of Adam.
        preservation_weight: lambda: weight of keeping the adversarial word.
        vocabulary: where adversarial words come from: ``tokenizer``, or the path of a text file with one a line.
        vocabulary_size: how many words of the tokenizer, from the most frequent on.
        candidates: K: words to search among, a number for all concepts or one for each; if None, 50 for explicit
            concepts and 100 for others.
        selection: ``cosine``: the K words of the most similar embeddings.  ``spread``: K words spread over the
            distances of the ``nearest`` words.
        nearest: the words that ``spread`` spreads over, given likewise; if None, 2000 for explicit concepts and 1000
            for others.
        exclude: words that are never preserved: the concepts' ``phrases``, these and their ``synonyms``, or none.
        search_steps: N_iter: gradient steps of the search before each step of the model.
        search_optimizer: plain gradient ascent, or Adam.
        search_rate: eta: its learning rate.
        search_gradient: through which predictions for the word the search differentiates its loss: those of ``both``
            models, or of the ``trained`` one alone.
        search_reduction: whether this loss is the ``sum`` of a latent's squared errors or their ``mean``; Adam tells
            them apart where gradients are no longer far above its epsilon of 1e-8.
        temperature: of the Gumbel-softmax.
        hard: one word at a time, with the gradient of the mixture (straight-through); else the mixture of words.
        negative_guidance: 0: the concepts shall be drawn as the blank prompt; otherwise the eta of ESD's target.
        loss_space: of the squared errors: the predicted ``noise``, or the clean latents ``x0`` that it implies at the
            first timestep of the slot that ``x_t`` is of.
        timestep_mode: as ESD's.
        start_guidance: scale of classifier-free guidance when sampling ``x_t``.
        sampling_steps: steps of a whole sampling run, of which a random number is run.
        batch_size: images in a gradient step, each of its own concept and word.
    """

    parameters: Pattern
    variant: Variant = "paper"
    steps: Count = 1000
    learning_rate: Positive = 1e-5
    preservation_weight: NonNegative = 1.0
    vocabulary: str = TOKENIZER
    vocabulary_size: Count = 3000
    candidates: Count | tuple[Count, ...] | None = None
    selection: Literal["cosine", "spread"] | None = None
    nearest: Count | tuple[Count, ...] | None = None
    exclude: Literal["nothing", "phrases", "synonyms"] | None = None
    search_steps: Annotated[int, Field(ge=0)] | None = None
    search_optimizer: Literal["gradient", "adam"] | None = None
    search_rate: Positive | None = None
    search_gradient: Literal["both", "trained"] | None = None
    search_reduction: Literal["sum", "mean"] | None = None
    temperature: Positive = 2.0
    hard: bool = True
    negative_guidance: float | None = None
    loss_space: Literal["noise", "x0"] | None = None
    timestep_mode: TimestepMode | None = None
    start_guidance: NonNegative = 3.0
    sampling_steps: SamplingSteps = 50
    batch_size: Count = 1

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Take the variant's settings, and the numbers of words by the concepts' kinds."""
        counts: dict[str, Any] = {}
        for name, (explicit, other) in WORDS.items():
            each = tuple(explicit if concept.kind == "explicit" else other for concept in concepts)
            counts[name] = each if len(set(each)) > 1 else next(iter(each), other)
        chosen = self.filled({**VARIANTS[self.variant], **counts})
        for name, value in (("candidates", chosen.candidates), ("nearest", chosen.nearest)):
            if isinstance(value, tuple) and len(value) != len(concepts):
                raise NotApplicable(f"{name} has {len(value)} numbers for {len(concepts)} concepts")
        return chosen

    def identity(self) -> dict[str, str]:
        """SHA-256 of the file of words, if there is one."""
        return {} if self.vocabulary == TOKENIZER else file_identity(self.vocabulary)

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts, one drawn at random for each image of a step (algorithm 2)."""
        rng = torch.Generator("cpu").manual_seed(context.seed)
        with torch.no_grad():
            blank, unconditional = model.embed([""]), model.embed_negative([""])
            phrases = model.embed([concept.phrase for concept in concepts])
            adversary = self.adversary(model, concepts, phrases)
        sampler = Sampler("ddim", self.sampling_steps, self.start_guidance)
        blanks = blank.expand(self.batch_size)
        weights, trace = TwoWeights(select_parameters(model.unet, self.parameters)), Trace(context, self.steps)

        def cut_sampling() -> CutSampling:
            return CutSampling.draw(model, sampler, self.batch_size, rng, decided(self.timestep_mode))

        with weights, training_attention(model.device):
            adam = torch.optim.Adam(weights.parameters.values(), lr=self.learning_rate)
            for _ in range(self.steps):
                chosen = torch.randint(len(concepts), (self.batch_size,), generator=rng)
                for _ in range(decided(self.search_steps)):
                    word, _ = adversary.draw(chosen.tolist(), rng)
                    run = cut_sampling()
                    y, t = run.latents(model, unconditional, word), run.timesteps
                    with weights.frozen(gradients=self.search_gradient == "both"):
                        preserved = model.predict_noise(y, t, word)
                    harm = self.error(model, model.predict_noise(y, t, word), preserved, run.slots)
                    adversary.ascend(harm * y[0].numel() if self.search_reduction == "sum" else harm)

                concept, run = phrases[chosen.to(model.device)], cut_sampling()
                with torch.no_grad():
                    word, names = adversary.draw(chosen.tolist(), rng)
                x, y = run.latents(model, unconditional, Conditioning.cat([concept, word])).chunk(2)
                t = run.timesteps
                with weights.frozen():
                    texts = Conditioning.cat([blanks, concept, word])
                    noises = model.predict_noise(torch.cat([x, x, y]), t.repeat(3), texts).chunk(3)
                    target, preserved = erased_noise(noises[0], noises[1], decided(self.negative_guidance)), noises[2]
                both = Conditioning.cat([concept, word])
                predicted = model.predict_noise(torch.cat([x, y]), t.repeat(2), both).chunk(2)
                erasing = self.error(model, predicted[0], target, run.slots)
                preserving = self.error(model, predicted[1], preserved, run.slots)
                loss = erasing + self.preservation_weight * preserving
                trace.step(
                    loss=loss.item(), erasing=erasing.item(), preserving=preserving.item(), word=", ".join(names)
                )
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
        return Erasure({f"unet.{name}": value for name, value in weights.trained.items()}, trace=tuple(trace.rows))

    def error(self, model: DiffusionModel, predicted: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """The mean squared difference of two predictions of noise, or of the clean latents that they imply."""
        if self.loss_space == "noise":
            return functional.mse_loss(predicted, target)
        alpha = model.signal(timesteps)
        # x_0 = (x_t - sqrt(1 - a) e) / sqrt(a), and both predictions are of the same x_t.
        return ((1 - alpha) / alpha * (predicted - target) ** 2).mean()

    def adversary(self, model: DiffusionModel, concepts: Sequence[Concept], phrases: Conditioning) -> Adversary:
        """The search, among the candidates of each concept; without gradients."""
        words = self.words(model, concepts)
        distances = self.distances(model, words, phrases)
        candidates = [
            [words[index] for index in self.select(of_words, k).tolist()] for k, of_words in enumerate(distances)
        ]
        optimizer = torch.optim.Adam if self.search_optimizer == "adam" else torch.optim.SGD
        return Adversary(
            candidates,
            [model.embed(words) for words in candidates],
            lambda logits: optimizer(logits, lr=decided(self.search_rate), maximize=True),
            self.temperature,
            self.hard,
        )

    def words(self, model: DiffusionModel, concepts: Sequence[Concept]) -> list[str]:
        """The vocabulary, without what is excluded.

        Raises:
            EraseBenchError: nothing is left of it, or its file cannot be read.
        """
        if self.vocabulary == TOKENIZER:
            known = sorted(model.tokenizer.get_vocab().items(), key=lambda item: item[1])
            tokens = [token.removesuffix(END_OF_WORD) for token, _ in known if token.endswith(END_OF_WORD)]
            # Other letters than ASCII's stand for bytes.
            words = [word for word in tokens if len(word) >= MIN_LETTERS and word.isascii() and word.isalpha()]
            words = words[: self.vocabulary_size]
        else:
            words = read_lines(self.vocabulary)
        excluded = set()
        if self.exclude != "nothing":
            excluded = {concept.phrase.casefold() for concept in concepts}
        if self.exclude == "synonyms":
            excluded |= {synonym.casefold() for concept in concepts for synonym in concept.synonyms}
        candidates = [word for word in words if word.casefold() not in excluded]
        if not candidates:
            raise EraseBenchError(f"the vocabulary '{self.vocabulary}' has no words besides the concepts")
        return candidates

    def distances(self, model: DiffusionModel, words: Sequence[str], phrases: Conditioning) -> Tensor:
        """The distance of each word from each concept: ``[n, words]``; their embeddings are taken as long vectors."""
        concepts, chunks = phrases.embeddings.flatten(1), []
        # The embeddings of a whole vocabulary would not fit into memory.
        for start in range(0, len(words), 64):
            embeddings = model.embed(words[start : start + 64]).embeddings.flatten(1)
            if self.selection == "cosine":
                chunks.append(1 - functional.normalize(concepts) @ functional.normalize(embeddings).T)
            else:
                chunks.append(torch.cdist(concepts, embeddings, compute_mode="donot_use_mm_for_euclid_dist"))
        return torch.cat(chunks, dim=1).cpu()

    def select(self, distances: Tensor, concept: int) -> Tensor:
        """The indices of the candidates of a concept, given the distances ``[words]`` of all words from it."""
        count, nearest = of_concept(self.candidates, concept), of_concept(self.nearest, concept)
        order = distances.argsort(stable=True)
        if self.selection == "cosine":
            return order[:count]
        order = order[:nearest]
        return order[spread(distances[order], count)]


def of_concept(numbers: int | tuple[int, ...] | None, concept: int) -> int:
    """The number of one concept, of one for all or one for each."""
    return numbers[concept] if isinstance(numbers, tuple) else decided(numbers)


class Adversary:
    """The search for the word whose preservation the erasure harms most (algorithm 1).

    Args:
        words: the candidates of each concept.
        embeddings: theirs, for each concept.
        optimizer: makes the optimizer that maximizes over the logits.
        temperature: of the Gumbel-softmax.
        hard: one word at a time instead of a mixture.
    """

    def __init__(
        self,
        words: Sequence[Sequence[str]],
        embeddings: Sequence[Conditioning],
        optimizer: Any,
        temperature: float,
        hard: bool,
    ) -> None:
        self.words, self._embeddings = words, embeddings
        self._temperature, self._hard = temperature, hard
        # Equal logits, of whatever value, are the uniform distribution.
        self.logits = [
            torch.zeros(len(conditioning), device=conditioning.embeddings.device, requires_grad=True)
            for conditioning in embeddings
        ]
        self._optimizer = optimizer(self.logits)

    def draw(self, concepts: Sequence[int], rng: torch.Generator) -> tuple[Conditioning, list[str]]:
        """An embedding for each of some concepts, and the words that weigh most in them."""
        drawn, names = [], []
        for concept in concepts:
            logits = self.logits[concept]
            gumbel = -torch.empty(len(logits)).exponential_(generator=rng).log().to(logits.device)
            weights = gumbel_softmax(logits, gumbel, self._temperature, self._hard)
            drawn.append(self._embeddings[concept].mixed(weights))
            names.append(self.words[concept][int(weights.argmax())])
        return Conditioning.cat(drawn), names

    def ascend(self, loss: Tensor) -> None:
        """One step of the logits that raises a loss of drawn embeddings."""
        gradients = torch.autograd.grad(loss, self.logits, allow_unused=True)
        for logits, gradient in zip(self.logits, gradients, strict=True):
            logits.grad = gradient
        self._optimizer.step()


def gumbel_softmax(logits: Tensor, gumbel: Tensor, temperature: float, hard: bool) -> Tensor:
    """Weights ``[n]`` that sum to 1: nearly, or if ``hard`` exactly, a word drawn with probabilities softmax(logits).

    Args:
        logits: ``[n]``.
        gumbel: noise ``[n]`` of Gumbel's standard distribution.
        temperature: the lower, the nearer to a single word.
        hard: a single word, but with the gradient of the soft weights (Jang et al. 2017, straight-through).
    """
    soft = torch.softmax((logits + gumbel) / temperature, dim=0)
    if not hard:
        return soft
    word = torch.zeros_like(soft)
    word[soft.argmax()] = 1
    return word + (soft - soft.detach())


def spread(values: Tensor, count: int) -> Tensor:
    """The indices of the values ``[n]`` next to the centres of ``count`` clusters (k-means in one dimension)."""
    values = values.double()
    ordered = values.sort().values
    centres = ordered[torch.linspace(0, len(values) - 1, min(count, len(values))).round().long()]
    for _ in range(1000):
        nearest = (values[:, None] - centres).abs().argmin(dim=1)
        sizes = torch.zeros_like(centres).index_add(0, nearest, torch.ones_like(values))
        sums = torch.zeros_like(centres).index_add(0, nearest, values)
        # A cluster without values stays where it is.
        means = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        if torch.equal(means, centres):
            break
        centres = means
    return (values[:, None] - centres).abs().argmin(dim=0)[sizes > 0]
