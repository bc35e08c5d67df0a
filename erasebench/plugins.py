"""Base classes of plug-ins, and what a run lends to them.

A method is a frozen dataclass of hyper-parameters whose defaults are the published ones, registered by name::

    @METHODS.register("my-method")
    @dataclass(frozen=True)
    class MyMethod(Method):
        learning_rate: Annotated[float, Field(gt=0)] = 1e-5

        def erase(self, model, concepts, context):
            ...
            return Erasure(weights={"unet.conv_in.weight": changed})

Both Python's own ``dataclass`` and pydantic's do; ranges stand with the fields, as pydantic has them.  Pydantic's also
validates what is made in Python; values that a user gives are validated either way.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

import pydantic.dataclasses
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.hyper_parameters import explain, names_of

if TYPE_CHECKING:
    from torch import Tensor

    from erasebench.adversarial import Found
    from erasebench.concepts import Concept
    from erasebench.judging import Images, Scores
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure
    from erasebench.models.families import Family
    from erasebench.training.target import Target

T = TypeVar("T")

BASELINE = "sd"
"""The method that erases nothing; every table starts with it."""
UNATTACKED = "none"
"""The attack that leaves prompts as they are, with which every other one is compared."""
Count = Annotated[int, Field(ge=1)]
"""A number of things, at least one."""
TokenCount = Annotated[int, Field(ge=1, le=75)]
"""Tokens of a prompt: CLIP reads 77, the first of which is the start and the last the end of text."""
SamplingSteps = Annotated[int, Field(ge=1, le=1000)]
"""Sampling steps, at most the 1,000 timesteps that Stable Diffusion was trained with."""
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class EraseContext:
    """The means that a run lends to a method.

    Attributes:
        seed: of everything random in the method; the same seed gives the same erasure.
        folder: where a method that takes long may keep its state and find it again after a kill.
        progress: to be told after each step: steps done, steps in all, figures such as the loss.
        judge: gives a judge by name, for methods that look at images.
    """

    seed: int
    folder: Path
    progress: Callable[[int, int, Mapping[str, float]], None]
    judge: Callable[[str], Judge]


# Neither NaN, which would pass many a check, nor infinity, which JSON lacks, is a hyper-parameter.
@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False, extra="forbid"))
class HyperParameters:
    """A frozen dataclass, whose fields are hyper-parameters.

    Attributes:
        version: part of the identity of results; to be raised when they change.
        tokens_only: it conditions the model on embeddings of tokens alone, so that it does not apply to models that
            also take a pooled embedding of the prompt.
    """

    version: ClassVar[int] = 1
    tokens_only: ClassVar[bool] = False

    def resolved(self, concepts: Sequence[Concept]) -> Self:
        """Return the same with everything decided: nothing is None that stands for a value found elsewhere.

        Only this enters identities.  To resolve again changes nothing.

        Raises:
            NotApplicable: the hyper-parameters do not fit the concepts.
        """
        return self

    def check_family(self, family: Family) -> None:
        """Find what can be known not to work on any model of a family.

        Raises:
            NotApplicable: it does not; the row of the table says why.
        """
        if self.tokens_only and family.pooled:
            raise NotApplicable(
                f"it conditions the model on embeddings of tokens alone, and {family.title} also takes a pooled "
                "embedding of the prompt"
            )

    def identity(self) -> dict[str, Any]:
        """Whatever else decides the result, such as the hash of a file that is read.

        Raises:
            EraseBenchError: there is no such file.
        """
        return {}

    def filled(self, values: Mapping[str, Any]) -> Self:
        """Return the same with values for those hyper-parameters that are None."""
        return dataclasses.replace(self, **{name: v for name, v in values.items() if getattr(self, name) is None})

    @model_validator(mode="wrap")
    @classmethod
    def _name_what_is_wrong(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise EraseBenchError(explain(error, names_of(cls))) from None


class Method(HyperParameters, ABC):
    """An erasure method.

    Attributes:
        guidance_only: it changes no weights, so that there is nothing to export.
        low_rank: its change can be exported as a LoRA.
        seeded: its erasure depends on the context's seed; that of a closed form or of a guidance rule does not, and
            several seeds would only make the same erasure again.
    """

    guidance_only: ClassVar[bool] = False
    low_rank: ClassVar[bool] = False
    seeded: ClassVar[bool] = True

    @property
    def changes_text_encoder(self) -> bool:
        """True if the erasure may change the text encoder; attacks on the text alone then search anew."""
        return False

    @abstractmethod
    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase concepts from a model.

        It is called on what :meth:`resolved` returned for the same concepts, after :meth:`check`.

        Args:
            model: the unerased model; it must be left as it was.
            concepts: what to erase, all at once.
            context: seed, progress, judges.

        Returns:
            What changed.

        Raises:
            FloatingPointError: training diverged.
        """

    def check(self, domain: str, concepts: Sequence[Concept]) -> None:
        """Find what can be known to fail without loading a model.

        Raises:
            NotApplicable: these concepts cannot be erased from a model of this domain; the row of the table says why.
        """
        return

    def check_model(self, folder: Path) -> None:
        """Find what can be known not to fit a model without loading it.

        Args:
            folder: of the diffusers pipeline.

        Raises:
            EraseBenchError: it does not fit; the run does not begin.
        """
        return

    def judges(self, domain: str, concepts: Sequence[Concept]) -> tuple[str, ...]:
        """The judges that it will ask the context for; where weights of one are missing, the method cannot run."""
        return ()


@dataclass(frozen=True)
class ResolvedMethod:
    """A method as the user wrote it, the name of its plug-in, an instance of it, and its seed if not the run's."""

    label: str
    name: str
    instance: Method
    seed: int | None = None


ThreatModel = Literal["none", "text-black-box", "text-white-box", "embedding", "latent", "image", "weights"]
"""Means of an attacker: only the text to choose; the text, with the model's gradients to choose it by; embeddings."""
Need = Literal["gradients", "unerased", "clip", "synonyms"]
"""The needs of an attack: gradients through the U-Net, the unerased model, images to be compared, synonyms."""


@dataclass(frozen=True)
class AttackContext:
    """The means that a run lends to an attack.

    Attributes:
        seed: of everything random in it; the same seed finds the same prompts.
        progress: to be told after each step: steps done, steps in all, figures such as the loss.
        learned: what :meth:`Attack.learn` returned.
    """

    seed: int
    progress: Callable[[int, int, Mapping[str, float]], None]
    learned: Mapping[str, Tensor] = field(default_factory=dict)


class Attack(HyperParameters, ABC):
    """An attack on an erasure.

    What it finds for a prompt must depend on nothing but model, concept, prompt and seed: not on the other prompts that
    it is given at once.

    Attributes:
        threat_model: what the attacker has.
        needs: what it cannot do without.
        learns: it learns something once for all prompts of a concept, by :meth:`learn`.
        text_only: it reads nothing of the model but its text encoder: what it finds for the unerased model is tried on
            every erased one that has the same.
        judged: it stops, or chooses among its finds, by the judge that also counts its successes.
        members: the attacks that it is made of; each is tried only on prompts that those before it left standing.
    """

    threat_model: ClassVar[ThreatModel]
    needs: ClassVar[tuple[Need, ...]] = ()
    learns: ClassVar[bool] = False
    text_only: ClassVar[bool] = False
    judged: ClassVar[bool] = False
    members: ClassVar[tuple[str, ...]] = ()

    @property
    def transfer_of(self) -> str:
        """The attack whose finds on the unerased model it tries; '' if it searches itself."""
        return ""

    def check(self, domain: str, concept: Concept) -> None:
        """Find what can be known to fail without loading a model.

        Raises:
            NotApplicable: this concept cannot be attacked so; the row of the table says why.
        """
        return

    def learn(self, target: Target, images: Images, context: AttackContext) -> dict[str, Tensor]:
        """Learn what serves all prompts of a concept; only called where ``learns`` says so.

        Args:
            target: the model under attack, with no prompts.
            images: of the concept by the unerased model, uint8 ``[n, height, width, 3]``, the clearest first.
            context: seed, progress.
        """
        raise NotImplementedError

    @abstractmethod
    def attack(self, target: Target, context: AttackContext) -> list[Found]:
        """Attack the prompts of a target, all at once.

        Args:
            target: the model with its erasure in force, and the prompts.
            context: seed, progress, what was learnt.

        Returns:
            What was found, one for each prompt.

        Raises:
            FloatingPointError: the search diverged.
        """


@dataclass(frozen=True)
class ResolvedAttack:
    """An attack as the user wrote it, the name of its plug-in, and an instance of it."""

    label: str
    name: str
    instance: Attack


@dataclass(frozen=True)
class Profile:
    """A paper's way to count by a judge: applied to raw scores, so that choosing another one judges nothing anew.

    Attributes:
        label: the column that counts.
        threshold: the concept is there if the score is at least this.
        source: the paper, and what differs from what its authors did.
    """

    label: str
    threshold: float
    source: str


class Judge(ABC):
    """A judge: a class without hyper-parameters beyond its weights.

    It is registered by name and made without arguments, or with the label that it is to look for and the domain if its
    registration says ``phrased=True``.

    Attributes:
        device: where it runs; a run sets it before the first scores.
        weights: what it reads beside images: a text for readers, or a file (:mod:`erasebench.judges.weights_files`),
            whose text says where it comes from.
        profiles: by name, how papers count by it.
    """

    device: str = "auto"
    weights: ClassVar[tuple[object, ...]] = ()
    profiles: ClassVar[Mapping[str, Profile]] = {}

    @property
    def labels(self) -> Sequence[str] | None:
        """The labels that it has scores for; None if it is made for the label that is asked for."""
        return None

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Version, hash of the weights, and whatever else decides the scores.

        Must not load the weights' frameworks: planning calls it.

        Raises:
            EraseBenchError: a weight file is missing: which, from where, how to get it.
        """

    @abstractmethod
    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """Judge images.

        Args:
            images: uint8 ``[n, height, width, 3]``.
            prompts: what each image was to show.
        """


class PairedJudge(Judge):
    """A judge that sees each image beside the unerased model's image of the same prompt and seed."""

    @abstractmethod
    def compare(self, images: Images, originals: Images) -> Scores:
        """Judge images by what they are compared with.

        Args:
            images: uint8 ``[n, height, width, 3]``.
            originals: the unerased model's image for each, of the same shape.
        """

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """Refuse: there is nothing to compare with.

        Raises:
            EraseBenchError: always.
        """
        raise EraseBenchError(
            f"{type(self).__name__} compares images with those of the unerased model, and cannot judge them alone"
        )


def decided(value: T | None) -> T:
    """Return a hyper-parameter of a resolved method.

    Raises:
        TypeError: it is None: the method was not resolved.
    """
    if value is None:
        raise TypeError("a hyper-parameter is not decided: call resolved(concepts) first")
    return value
