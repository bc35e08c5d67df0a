"""LoRAs that other tools wrote: diffusers, peft and kohya's.

Importing this module does without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.errors import EraseBenchError, one_line
from erasebench.models.parameter_names import parameter_name

if TYPE_CHECKING:
    from torch import Tensor

_HALF = re.compile(r"(.+?)[._]lora[._](?:(A|down)|(B|up))(?:\.default)?\.weight|(.+)\.alpha")


def is_lora(keys: Iterable[str]) -> bool:
    """True if a file with these keys holds a LoRA: factors, and not only alphas."""
    return any((half := _HALF.fullmatch(key)) and not half[4] for key in keys)


def low_rank(
    tensors: Mapping[str, Tensor], known: Sequence[str], alphas: Mapping[str, float]
) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of a LoRA: ``alpha / rank`` times up, and down; without an alpha, it is the rank.

    Args:
        tensors: the file's.
        known: the model's parameters.
        alphas: what the file says besides its keys: part of the model, or "" for any -> alpha.

    Raises:
        EraseBenchError: a key or a factor is none of a LoRA's, or of no parameter of the model.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        half = _HALF.fullmatch(key)
        if half is None:
            raise EraseBenchError(f"'{key}' is among keys of a LoRA, but not one")
        # The attention processors of old versions of diffusers call the output projection to_out, not to_out.0.
        stem = re.sub(r"\.processor\.to_out$", ".to_out.0", half[1] or half[4])
        what = "down" if half[2] else "up" if half[3] else "alpha"
        halves.setdefault(parameter_name(stem, known), {})[what] = tensor.float()
    factors = {}
    for name, pair in halves.items():
        if not {"up", "down"} <= set(pair):
            raise EraseBenchError(f"the LoRA of {name} lacks a half; it has only: {', '.join(sorted(pair))}")
        if min(pair["up"].ndim, pair["down"].ndim) < 2 or not len(pair["down"]):
            shapes = " and ".join(str(list(pair[half].shape)) for half in ("up", "down"))
            raise EraseBenchError(f"the LoRA of {name} has factors of shapes {shapes}, which are no matrices")
        rank = len(pair["down"])
        alpha = float(pair["alpha"]) if "alpha" in pair else alphas.get(name.split(".")[0], alphas.get("", rank))
        factors[name] = pair["up"].flatten(1) * (alpha / rank), pair["down"].flatten(1)
    return factors


def recorded_alphas(file: Path) -> dict[str, float]:
    """Alphas that diffusers puts into the file's header and peft into ``adapter_config.json`` beside it.

    Raises:
        EraseBenchError: they cannot be read, or ask for what is not supported.
    """
    from safetensors import safe_open

    texts: list[str] = []
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            texts.append((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    beside = file.with_name("adapter_config.json")
    settings: dict[str, Any] = {}
    alphas: dict[str, float] = {}
    try:
        if beside.is_file():
            texts.append(beside.read_text(encoding="utf-8"))
        for text in texts:
            settings |= json.loads(text)
        for name, value in settings.items():
            part, _, what = name.rpartition(".")
            if value and what in ("alpha_pattern", "rank_pattern", "use_rslora", "use_dora"):
                raise EraseBenchError(f"a LoRA with {name} is not supported; merge it and use the merged weights")
            if what == "lora_alpha":
                alphas[part] = float(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EraseBenchError(f"the settings of the LoRA {file} cannot be read: {one_line(error)}") from None
    return alphas
