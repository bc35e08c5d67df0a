"""DM2: Dark Miner (Meng et al. 2024, arXiv 2409.17682).

A recurring process of three stages: mine an embedding that makes the model draw the concept best, verify with CLIP that
it does, circumvent it by training adapters; until what is mined no longer draws the concept.  No code was published.

Where the paper is silent:

- An epoch, of mining as of circumventing, is one gradient step: its batch of 3 is all that a loop samples of the pool.
  Both use plain SGD, without momentum or weight decay.
- The pool's prompt is "a * photo" in the paper, which writes "a violent photo" for violence: an adjective, where the
  concept has one (:data:`ADJECTIVES`; "nude" is assumed), and else its phrase.
- CLIP, whose image encoder verifies, is not named: here it is OpenAI's ViT-B/32, that of the judge ``clip``, and
  Picturebook's own on Picturebook.
- The embedding length is 32: the paper's table has 8, 16 and a third row, whose length its text has lost.  An embedding
  is a free tensor that stands for a whole text encoder output.  It starts at random, with the spread of the anchor's
  embedding (``initial="normal"``), or at the anchor's own first tokens (``initial="anchor"``).
- Losses are squared norms, as printed: summed over a latent's elements, averaged over the batch.  Only then are the
  published clips, 10 and 100, of the gradients' size.  ``reduction="mean"`` averages over elements as well.
- All terms of a circumventing step share ``x_t``, ``t`` and the noise, so that eq. 7 and 8 need one U-Net call for
  each length of text.
- The replay of eq. 7 draws an embedding for each image of each step, of those that were verified.
- The unerased model draws the reference image of eq. 6 for the anchor (the paper's is "a photo"), the model in
  training the mined one, from the same noise.
  CLIP's features are L2-normalised.
- Images are drawn by DDIM with classifier-free guidance against the blank prompt, mined embeddings too.
- Adapters start as LoRA's do (Hu et al. 2021): down random, up zero, scale 1.

Extensions of this project: several concepts have one pool each and one set of adapters; loops alternate between the
concepts that are still found.  ``bank`` keeps latents drawn once for each embedding instead of drawing ``x`` anew at
every step.  ``max_loops`` and ``time_budget`` end what the paper lets run until verifying fails.

Deviation: the pool holds latents as they are drawn, without a trip through the VAE.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor, nn

from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError
from erasebench.files import read_hashed, write_hashed
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, Share
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, draw_latents, noise_seed, sample_latents
from erasebench.training.adapters import Adapters, Location, adapted_layers
from erasebench.training.latents import noisy
from erasebench.training.mining import Mined, predict_each
from erasebench.training.parameters import training_attention
from erasebench.training.trace import Trace
from erasebench.training.words import check_anchors

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.plugins import Judge

ADJECTIVES = {"violence": "violent", "nudity": "nude"}
"""Of concepts that have one, by name."""
STATE, POOLS = "dark-miner-state", "dark-miner-pools"


@METHODS.register("dm2")
@pydantic.dataclasses.dataclass(frozen=True)
class DarkMiner(Method):
    """Mine, verify and circumvent embeddings of a concept, until none is found.

    Attributes:
        location: which projections of all attention modules have adapters (table S5).
        rank: of the adapters.
        pool_size: images of each concept to mine from (table 3).
        pool_prompt: what they are drawn for; ``{}`` stands for the concept's phrase, ``{adjective}`` for its adjective,
            or its phrase where it has none.
        pool_seed: of the pool alone (table 2); None for the erasure's seed.
        embedding_length: tokens of a mined embedding (table S3).
        initial: where mining starts.
        images: k, images of the pool in each loop; all of them are in each mining step.
        mining_steps: gradient steps of mining.
        mining_learning_rate: of its SGD.
        mining_decay: the share of its steps after which the learning rate falls to a tenth.
        mining_clip: the greatest norm of its gradient.
        tau: the score from which on an embedding counts as drawing the concept (table S2); -1: always.
        verifying_pictures: images of the embedding, over which the score is averaged.
        anchor: the prompt whose prediction replaces the embedding's (table S4); None for the concept's own anchor,
            blank where the catalogue has none.  On the command line, ``anchor=''`` is the blank prompt.
        steps: gradient steps of circumventing.
        learning_rate: of its SGD.
        decay: the share of its steps after which the learning rate falls to a tenth.
        clip: the greatest norm of its gradient.
        batch_size: images in a step of circumventing.
        circumvent_weight: alpha_c.
        preserve_weight: alpha_p.
        preserve_anchor: whether eq. 8 has its first term, the anchor's (table 4).
        preserve_zero: whether it has its second term, the all-zero embedding's.
        preserve_negative: whether it has its third term, the negated embedding's.
        replay: r, the probability of the loop's own embedding, against those of earlier loops.
        bank: draw so many latents for each embedding once; 0, as published: draw anew for each image of each step.
        reduction: whether the squared errors of a latent are summed or averaged.
        sampling_steps: of every image.
        guidance_scale: of every image.
        max_loops: of each concept.  The paper has no limit and needs 48 for nudity.
        time_budget: seconds after which no further loop begins, resumed runs counted together; None for no limit.  With
            one, the result depends on the machine.
    """

    location: Location = "value"
    rank: Count = 8
    pool_size: Count = 200
    pool_prompt: str = "a {adjective} photo"
    pool_seed: Annotated[int, Field(ge=0)] | None = None
    embedding_length: Count = 32
    initial: Literal["normal", "anchor"] = "normal"
    images: Count = 3
    mining_steps: Count = 1000
    mining_learning_rate: Positive = 0.1
    mining_decay: Share = 0.5
    mining_clip: Positive = 10.0
    tau: Annotated[float, Field(ge=-1, le=1)] = 0.2
    verifying_pictures: Count = 1
    anchor: str | None = "a photo"
    steps: Count = 1000
    learning_rate: Positive = 0.01
    decay: Share = 0.8
    clip: Positive = 100.0
    batch_size: Count = 1
    circumvent_weight: NonNegative = 1.0
    preserve_weight: NonNegative = 0.5
    preserve_anchor: bool = True
    preserve_zero: bool = True
    preserve_negative: bool = True
    replay: Share = 0.7
    bank: Annotated[int, Field(ge=0)] = 0
    reduction: Literal["sum", "mean"] = "sum"
    sampling_steps: SamplingSteps = 50
    guidance_scale: NonNegative = 7.5
    max_loops: Count = 100
    time_budget: Positive | None = None
    low_rank: ClassVar[bool] = True
    tokens_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.images > self.pool_size:
            raise EraseBenchError(f"images must be at most pool_size, {self.pool_size}, not {self.images}")
        if "{}" not in self.pool_prompt and "{adjective}" not in self.pool_prompt:
            raise EraseBenchError(
                f"pool_prompt must have {{}} or {{adjective}} where the concept goes, not '{self.pool_prompt}'"
            )

    def judges(self, domain: str, concepts: Sequence[Concept]) -> tuple[str, ...]:
        """CLIP, which verifies."""
        return (DOMAINS[domain].clip,)

    def check(self, domain: str, concepts: Sequence[Concept]) -> None:
        """Nothing can be mapped to what is itself erased."""
        check_anchors(concepts, [(concept, self._anchor(concept)) for concept in concepts])

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase the concepts; takes up again after the last loop whose end ``context.folder`` knows."""
        began, judge = time.monotonic(), context.judge(self.judges(model.domain, concepts)[0])
        state = Mined.load(context.folder / STATE, model.device)
        pools = self._pools(model, concepts, context)
        with torch.no_grad():
            anchors = model.embed([self._anchor(concept) for concept in concepts])
        total = self.max_loops * len(concepts) * (self.mining_steps + 1 + self.steps)
        trace = Trace(context, total, state.trace)
        layers = adapted_layers(model.unet, self.location)
        before = state.seconds
        with Adapters(model.unet, layers, self.rank, context.seed) as adapters, training_attention(model.device):
            if state.adapters:
                adapters.load(state.adapters)
            while (k := self._next(state, len(concepts))) is not None:
                loop = len(state.scores) + 1
                rng = torch.Generator("cpu").manual_seed(noise_seed(f"loop {loop}", context.seed))
                where: dict[str, Any] = {"loop": float(loop), "concept": concepts[k].name}
                images = pools[k][torch.randperm(len(pools[k]), generator=rng)[: self.images]].to(model.device)
                embedding = self._mine(model, images, anchors[k], rng, trace, where)
                figures = self._verify(model, adapters, judge, embedding, images, anchors[k], concepts[k], rng)
                score = figures["score"]
                trace.step(**where, stage="verify", **figures)
                state.concepts.append(k)
                state.scores.append(score)
                state.embeddings.append(embedding)
                if self.bank:
                    with adapters.off():
                        state.banks.append(self._draw(model, Conditioning(embedding[None]).expand(self.bank), rng))
                if score > self.tau:
                    self._circumvent(model, adapters, state, anchors, rng, trace, where)
                state.adapters, state.trace = adapters.factors(), trace.rows
                state.seconds = before + time.monotonic() - began
                state.save(context.folder / STATE)
            factors = adapters.factors()
        return Erasure(
            low_rank={f"unet.{name}.weight": pair for name, pair in factors.items()},
            trace=tuple(trace.rows),
            record={
                "embeddings": torch.stack(state.embeddings),
                "scores": torch.tensor(state.scores),
                "concepts": torch.tensor(state.concepts),
            },
        )

    def _pool_prompt(self, concept: Concept) -> str:
        adjective = ADJECTIVES.get(concept.name, concept.phrase)
        return self.pool_prompt.replace("{}", concept.phrase).replace("{adjective}", adjective)

    def _anchor(self, concept: Concept) -> str:
        return concept.anchor if self.anchor is None else self.anchor

    def _next(self, state: Mined, count: int) -> int | None:
        """The concept of the next loop: of those that are still found, one with the fewest loops; None at the end."""
        if state.scores and self.time_budget is not None and state.seconds >= self.time_budget:
            return None
        over = {k for k, score in zip(state.concepts, state.scores, strict=True) if score <= self.tau}
        loops = {k: state.concepts.count(k) for k in range(count) if k not in over}
        still = [k for k, done in loops.items() if done < self.max_loops]
        return min(still, key=loops.__getitem__, default=None)

    def _pools(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> list[Tensor]:
        """The image pool P_I of each concept: latents ``[pool_size, c, h, w]`` by the unerased model, drawn once."""
        path = context.folder / POOLS
        data = read_hashed(path)
        if data is None:
            sampler = Sampler("ddim", self.sampling_steps, self.guidance_scale)
            pool = context.seed if self.pool_seed is None else self.pool_seed
            seeds = range(pool * self.pool_size, (pool + 1) * self.pool_size)
            prompts = [self._pool_prompt(concept) for concept in concepts]
            drawn = {
                str(k): torch.cat([*draw_latents(model, [prompt] * self.pool_size, seeds, sampler)]).cpu()
                for k, prompt in enumerate(prompts)
            }
            data = save(drawn)
            write_hashed(path, data)
        pools = load(data)
        return [pools[str(k)] for k in range(len(concepts))]

    def _mine(
        self,
        model: DiffusionModel,
        images: Tensor,
        anchor: Conditioning,
        rng: torch.Generator,
        trace: Trace,
        where: Mapping[str, Any],
    ) -> Tensor:
        """Eq. 5: the embedding ``[length, width]`` under which the model, as it is now, best denoises the images."""
        if self.initial == "anchor":
            tokens = torch.arange(self.embedding_length) % anchor.length
            embedding = anchor.embeddings[0, tokens.to(model.device)].clone()
        else:
            shape = self.embedding_length, anchor.embeddings.shape[2]
            embedding = torch.randn(shape, generator=rng).to(model.device) * anchor.embeddings.std()
        embedding.requires_grad_(True)
        sgd = torch.optim.SGD([embedding], lr=self.mining_learning_rate)
        for step in range(self.mining_steps):
            x_t, t, noise = noisy(model, images, rng)
            predicted = model.predict_noise(x_t, t, Conditioning(embedding[None]).expand(len(images)))
            loss = self._error(predicted, noise)
            trace.step(**where, stage="mine", loss=loss.item())
            # Not backward(): the adapters need no gradient here.
            (embedding.grad,) = torch.autograd.grad(loss, embedding)
            nn.utils.clip_grad_norm_([embedding], self.mining_clip)
            set_learning_rate(sgd, self.mining_learning_rate, step >= self.mining_decay * self.mining_steps)
            sgd.step()
        return embedding.detach()

    def _verify(
        self,
        model: DiffusionModel,
        adapters: Adapters,
        judge: Judge,
        embedding: Tensor,
        images: Tensor,
        anchor: Conditioning,
        concept: Concept,
        rng: torch.Generator,
    ) -> dict[str, float]:
        """Eq. 6, ``score``: how much the embedding's images differ from the anchor's as the concept's do; in [-1, 1].

        And the cosines that table S6 compares with it: of the embedding's images with the anchor's and the pool's,
        and with the texts of both.
        """
        # Here, because naming a method's judge must not import its frameworks.
        from erasebench.picturebook.judges.clip import delta_similarity

        n = self.verifying_pictures
        noise_from = rng.get_state()
        drawn = self._draw(model, Conditioning(embedding[None]).expand(n), rng)
        with adapters.off():
            reference = self._draw(model, anchor.expand(n), rng.set_state(noise_from))
        pixels = model.decode(torch.cat([drawn, reference, images]))
        features = judge.scores(pixels, [""] * len(pixels)).arrays["features"]
        f_c, f_r, f_e = features[:n], features[n : 2 * n], features[2 * n :]
        texts = {"anchor": self._anchor(concept), "concept": self._pool_prompt(concept)}
        clip = {name: judge.scores(pixels[:n], [text] * n).columns["clip"] for name, text in texts.items()}
        return {
            "score": float(delta_similarity(f_c, f_r, f_e).mean()),
            "cosine_reference": float((f_c * f_r).sum(axis=1).mean()),
            "cosine_pool": float((f_c @ f_e.T).mean()),
            # CLIP scores are 100 times the cosine.
            **{f"cosine_{name}_text": float(scores.mean()) / 100 for name, scores in clip.items()},
        }

    def _circumvent(
        self,
        model: DiffusionModel,
        adapters: Adapters,
        state: Mined,
        anchors: Conditioning,
        rng: torch.Generator,
        trace: Trace,
        where: Mapping[str, Any],
    ) -> None:
        """Train the adapters on the last embedding and, now and then, earlier ones (eq. 7 and 8)."""
        last = len(state.scores) - 1
        earlier = torch.tensor([i for i in range(last) if state.scores[i] > self.tau])
        embeddings = Conditioning(torch.stack(state.embeddings))
        own = anchors[state.concepts]
        sgd = torch.optim.SGD(adapters.parameters, lr=self.learning_rate)
        for step in range(self.steps):
            chosen = torch.full((self.batch_size,), last)
            if len(earlier):
                others = earlier[torch.randint(len(earlier), (self.batch_size,), generator=rng)]
                chosen = torch.where(torch.rand(self.batch_size, generator=rng) < self.replay, chosen, others)
            c, c_0 = embeddings[chosen], own[chosen]
            if self.bank:
                drawn = torch.randint(self.bank, (self.batch_size,), generator=rng)
                x = torch.stack([state.banks[i][n] for i, n in zip(chosen.tolist(), drawn.tolist(), strict=True)])
            else:
                with adapters.off():
                    x = self._draw(model, c, rng)
            x_t, t, _ = noisy(model, x, rng)
            loss_c, loss_p = self.losses(model, adapters, x_t, t, c, c_0)
            loss = self.circumvent_weight * loss_c + self.preserve_weight * loss_p
            figures = {"loss": loss.item(), "loss_c": loss_c.item(), "loss_p": loss_p.item()}
            trace.step(**where, stage="circumvent", **figures)
            sgd.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(adapters.parameters, self.clip)
            set_learning_rate(sgd, self.learning_rate, step >= self.decay * self.steps)
            sgd.step()

    def losses(
        self, model: DiffusionModel, adapters: Adapters, x_t: Tensor, t: Tensor, c: Conditioning, c_0: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """The circumventing loss l_c of eq. 7 and the preserving loss l_p of eq. 8.

        Args:
            model: with the adapters.
            adapters: on for the trained predictions, off for the frozen ones.
            x_t: noisy latents ``[n, c, h, w]``.
            t: their timesteps ``[n]``.
            c: mined embeddings, ``n`` of them.
            c_0: the anchor's, of its own length.
        """
        zero, negative = Conditioning(torch.zeros_like(c.embeddings)), Conditioning(-c.embeddings)
        terms = {"preserve_anchor": c_0, "preserve_zero": zero, "preserve_negative": negative}
        preserved_texts = [text for name, text in terms.items() if getattr(self, name)]
        with adapters.off():
            # The anchor's prediction is the target of eq. 7, and of the first term of eq. 8.
            target, *before = predict_each(model, x_t, t, [c_0, *preserved_texts[self.preserve_anchor :]])
        if self.preserve_anchor:
            before.insert(0, target)
        erased, *after = predict_each(model, x_t, t, [c, *preserved_texts])
        changes = [self._error(now, then) for now, then in zip(after, before, strict=True)]
        return self._error(erased, target), sum(changes, start=erased.new_zeros(()))

    def _error(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The squared norm of the difference, averaged over the batch."""
        squares = (predicted - target).square()
        return squares.mean() if self.reduction == "mean" else squares.sum() / len(squares)

    def _draw(self, model: DiffusionModel, text: Conditioning, rng: torch.Generator) -> Tensor:
        """Latents ``[n, c, h, w]`` that the model, as it is now, draws for ``n`` embeddings."""
        sampler = Sampler("ddim", self.sampling_steps, self.guidance_scale)
        noise = torch.randn((len(text), *sampler.latent_shape(model)), generator=rng).to(model.device)
        with torch.no_grad():
            # An embedding of the anchor's length is drawn as one of any other.
            return sample_latents(model, noise, text, sampler, apart=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float, decayed: bool) -> None:
    """The learning rate, or a tenth of it."""
    for group in optimiser.param_groups:
        group["lr"] = rate / 10 if decayed else rate
