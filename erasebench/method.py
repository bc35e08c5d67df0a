"""What an erasure method is, and what it may ask of the run that it is part of.

A method is a frozen dataclass of hyper-parameters whose defaults are the published ones, registered by name::

    @METHODS.register("my-method")
    @dataclass(frozen=True)
    class MyMethod:
        learning_rate: float = 1e-5

        def erase(self, model, concepts, context):
            ...
            return Erasure(weights={"unet.conv_in.weight": changed})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.judging import Judge
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure


@dataclass(frozen=True)
class EraseContext:
    """What a run lends to a method.

    Attributes:
        seed: of everything random in the method; the same seed gives the same erasure.
        folder: where a method that takes long may keep its state and find it again after a kill.
        progress: to be told after each step: steps done, steps in all, figures such as the loss.
        judge: gives a judge by name, for methods that look at pictures.
    """

    seed: int
    folder: Path
    progress: Callable[[int, int, Mapping[str, float]], None]
    judge: Callable[[str], Judge]


class Method(Protocol):
    """An erasure method.

    A class may also have ``version: ClassVar[int]`` (raised when its results change; 1 if absent),
    ``identity() -> dict`` (what else decides its result, such as the hash of a file that it reads),
    ``why_not(domain, concepts) -> str | None`` (why it cannot run, known without loading a model: the row is n/a),
    ``judges(domain, concepts) -> Sequence[str]`` (the judges that it will ask the context for; where one's weights are
    missing, the row is n/a), ``guidance_only: ClassVar[bool]`` (it changes no weights: there is nothing to export) and
    ``low_rank: ClassVar[bool]`` (its change can be exported as a LoRA; False if absent).
    """

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Erase concepts from a model.

        Args:
            model: the unerased model; it must be left as it was.
            concepts: what to erase, all at once.
            context: seed, progress, judges.

        Returns:
            What changed.

        Raises:
            FloatingPointError: training diverged.
        """
        ...


def hyper_parameters(make: Any, presets: Mapping[str, Any]) -> dict[str, Any]:
    """All hyper-parameters of a method or attack class with their values, as JSON-able data.

    Raises:
        EraseBenchError: an unknown name, with the nearest, or a value of the wrong type or range.
    """
    import dataclasses

    from pydantic import TypeAdapter, ValidationError

    from erasebench.errors import EraseBenchError, check_name

    made: Any
    known = [f.name for f in dataclasses.fields(make) if f.init]
    for name in presets:
        check_name("hyper-parameter", name, known)
    try:
        made = TypeAdapter(make).validate_python(dict(presets))
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in first["loc"])
        raise EraseBenchError(f"{where + ': ' if where else ''}{first['msg']}") from None
    return {name: getattr(made, name) for name in known}


def check_positive(method: Any, *names: str) -> None:
    """Raise :class:`EraseBenchError` if one of a method's options is not positive; None stands for another."""
    from erasebench.errors import EraseBenchError

    for name in names:
        value = getattr(method, name)
        if value is not None and not value > 0:
            raise EraseBenchError(f"{name} must be positive, not {value}")


def check_sampling(method: Any, scale: str = "guidance_scale") -> None:
    """Raise :class:`EraseBenchError` if a method's own sampling cannot be.

    Args:
        method: with ``sampling_steps``, at most the 1,000 timesteps that Stable Diffusion was trained with.
        scale: its option that is the scale of guidance.
    """
    from erasebench.errors import EraseBenchError

    steps, guidance = method.sampling_steps, getattr(method, scale)
    if not 1 <= steps <= 1000:
        raise EraseBenchError(f"sampling_steps must be from 1 to 1000, not {steps}")
    if not 0 <= guidance < math.inf:
        raise EraseBenchError(f"{scale} must be at least 0, not {guidance}")


def check_loss(loss: float, step: int) -> None:
    """Raise ``FloatingPointError`` if a training loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"training diverged: the loss is {loss} at step {step}")
