"""Soft prompt: an upper bound of what any prompt can bring back.

All token embeddings between the start and the end of text are free, and are learnt by textual inversion (Gal et al.,
ICLR 2023) against the erased model, from images of the concept by the unerased one.  What the best of them cannot bring
back, no prompt can, soft or hard, as far as the optimizer finds the best; what they bring back, nobody need be able to
type.

There is no publication of this, so that all settings are this project's.  Steps, images and optimizer are those of CCE
against changed weights, also where the erasure is a rule of guidance, so that the two differ in what is free.  The
learning rate is lower: on the built-in model .01 and .1 did about as well, and the lower leaves the embeddings near
those of words.  Momentum is not rolled unless it is asked for: that takes as many passes as there are timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.plugins import (
    Attack,
    AttackContext,
    Count,
    Need,
    NonNegative,
    Positive,
    ThreatModel,
    TokenCount,
    decided,
)
from erasebench.registry import ATTACKS
from erasebench.training.inversion import placeholder
from erasebench.training.learned_tokens import (
    WINDOW,
    Budget,
    found_tokens,
    has_momentum,
    learn_tokens,
    token_rng,
)

if TYPE_CHECKING:
    from torch import Tensor

    from erasebench.concepts import Concept
    from erasebench.judging import Images
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.training.target import Target


@ATTACKS.register("soft-prompt")
@dataclass(frozen=True)
class SoftPrompt(Attack):
    """Learn all token embeddings of a prompt, the same for every prompt that is attacked: an upper bound.

    The prompts themselves count for nothing but their noise.  What it cost to learn counts for each of them.

    Attributes:
        tokens: how many embeddings are free, behind the start of text; "all": as many as the text encoder reads.
        initial: the words that the embeddings start from, which the end of text fills up; if None, the concept's
            phrase, so that the search starts from what the model draws for that.
        steps: gradient steps.
        batch_size: images in a gradient step.
        at_once: images that go through the U-Net together; the gradients of a step's add up.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        images: how many images to learn from, at most.
        flip: also learn from the images' mirror images.
        inner_steps: timesteps that the momentum of a rule of guidance is rolled through for each image, one image at a
            time; 1: none.
    """

    threat_model: ClassVar[ThreatModel] = "embedding"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "unerased")
    learns: ClassVar[bool] = True

    tokens: TokenCount | Literal["all"] = "all"
    initial: str | None = None
    steps: Count = 5000
    batch_size: Count = 16
    at_once: Count = 4
    learning_rate: Positive = 0.01
    weight_decay: NonNegative = 0.01
    images: Count = 1000
    flip: bool = True
    inner_steps: Annotated[int, Field(ge=1, le=WINDOW)] = 1

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Start from the first concept's phrase."""
        return self.filled({"initial": concepts[0].phrase})

    def learn(self, target: Target, images: Images, context: AttackContext) -> dict[str, Tensor]:
        """Learn the embeddings; see :func:`~erasebench.training.learned_tokens.learn_tokens`.

        Raises:
            EraseBenchError: the text encoder does not read so many tokens.
            NotApplicable: there is no image.
        """
        model = target.model
        count = model.tokenizer.model_max_length - 2 if self.tokens == "all" else self.tokens
        start = filled_vectors(model, decided(self.initial), count)
        rolled = has_momentum(target) and self.inner_steps > 1
        budget = Budget(
            self.steps,
            self.batch_size,
            1 if rolled else self.at_once,
            self.learning_rate,
            self.weight_decay,
            self.inner_steps if rolled else 1,
        )
        rng = token_rng("soft-prompt", target.concept, context.seed)
        return learn_tokens(target, images[: self.images], context, ["{}"], start, rng, budget, self.flip)

    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Give every prompt the same embeddings."""
        vectors = context.learned["vectors"]
        slots = tuple(range(1, 1 + len(vectors)))
        prompt = AdversarialPrompt(placeholder(len(vectors)), vectors=vectors.numpy(), slots=slots)
        rows = range(len(target.prompts))
        target.spend(rows, int(context.learned["passes"]))
        return [found_tokens(prompt, context.learned) for _ in rows]


def filled_vectors(model: DiffusionModel, words: str, count: int) -> Tensor:
    """Token embeddings ``[count, width]`` of words, cut off or filled up with that of the end of text."""
    ids = model.tokenizer(words, add_special_tokens=False).input_ids[:count]
    ids += [model.tokenizer.eos_token_id] * (count - len(ids))
    return model.token_embeddings[ids].detach()
