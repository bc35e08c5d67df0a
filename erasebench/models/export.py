"""Erasures for stock diffusers: a pipeline, a pipeline's folder, or a LoRA."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.files import durably, replace_folder
from erasebench.models.diffusion import DiffusionModel, check_fits
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import to_json

LORA = "pytorch_lora_weights.safetensors"
"""The file that ``load_lora_weights`` looks for in a folder."""
_TEXT_LAYERS = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")
"""The layers of text encoders in which diffusers looks for a LoRA."""
_SHOWN = 5
"""How many parameters a message names."""


def export_pipeline(model: DiffusionModel, erasure: Erasure, base: Path, folder: Path) -> None:
    """Write the erased model as a plain diffusers pipeline, which ``from_pretrained`` of its class loads.

    Args:
        model: the unerased model; it is left as it was.
        erasure: what to apply to it.
        base: the model's folder, whose tokenizers are copied as they are: each version of transformers reads other
            files.
        folder: appears whole or not at all; one that is there is replaced.

    Raises:
        EraseBenchError: the erasure has a guidance rule, or changes what the model does not have.
    """
    import diffusers

    check_exportable(erasure)
    config = model.scheduler_config
    scheduler = getattr(diffusers, config.get("_class_name", "DDIMScheduler")).from_config(config)
    family = model.family
    parts = {name: getattr(model, name) for name in (*family.networks, *family.tokenizers)}
    pipeline: Any = getattr(diffusers, family.pipeline)(
        **parts, scheduler=scheduler, **dict.fromkeys(family.unused), **model.pipeline_options
    )

    def write(partial: Path) -> None:
        with model.erased(erasure):
            pipeline.save_pretrained(partial)
        for name in family.tokenizers:
            shutil.rmtree(partial / name)
            shutil.copytree(base / name, partial / name)
        forget_origin(partial)

    replace_folder(folder, write)


def erase_pipeline(pipeline: Any, model: DiffusionModel, erasure: Erasure) -> Any:
    """Return a pipeline as the given one, erased; the given one is left as it was.

    The parts that the erasure changes and the scheduler, which keeps the state of its last run, are its own; all others
    are shared with the given pipeline.

    Args:
        pipeline: a stock pipeline of the model's family.
        model: a copy of it in full precision, whose parts the new pipeline takes.
        erasure: what to apply.

    Raises:
        EraseBenchError: the erasure has a guidance rule, or changes what the model does not have.
    """
    check_exportable(erasure)
    model.apply(erasure)
    changed = {name.partition(".")[0] for name in (*erasure.weights, *erasure.low_rank)}
    parts = {part: _as_given(getattr(model, part), getattr(pipeline, part)) for part in changed}
    components = pipeline.components
    options = {name: value for name, value in pipeline.config.items() if name not in components and name[0] != "_"}
    erased = type(pipeline)(**{**components, **parts, "scheduler": deepcopy(pipeline.scheduler)}, **options)
    erased.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))
    if pipeline.name_or_path:  # by which Picturebook is known
        erased.register_to_config(_name_or_path=pipeline.name_or_path)
    return erased


def _as_given(part: Any, given: Any) -> Any:
    """A part in the precision and the mode of a given one."""
    if part.dtype != given.dtype:  # diffusers logs a remark at every conversion
        part.to(given.dtype)
    part.train(given.training)
    for parameter, original in zip(part.parameters(), given.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return part


def forget_origin(folder: Path) -> None:
    """Remove from every config the local folder that its model was once loaded from."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None):
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def export_lora(model: DiffusionModel, erasure: Erasure, path: Path) -> None:
    """Write a low-rank erasure as a LoRA, which ``pipeline.load_lora_weights`` loads at its full strength.

    Factors of different ranks are filled up with zeros to one rank: with one rank and no alpha, every version of
    diffusers scales all of them by 1.

    Args:
        model: the unerased model; its layers tell linear from convolution.
        erasure: what to write.
        path: the file; diffusers finds it by its folder if it is called :data:`LORA`.

    Raises:
        EraseBenchError: the erasure is not low-rank, or has a guidance rule, or changes what a LoRA cannot change.
    """
    check_exportable(erasure)
    check_fits(erasure, model.parameters())
    if erasure.weights:
        raise EraseBenchError(f"not low-rank: {_named(list(erasure.weights))}; export the erasure as diffusers instead")
    without = [name for name in erasure.low_rank if not _takes_lora(model, name)]
    if without:
        raise EraseBenchError(f"a LoRA cannot change {_named(without)}; export the erasure as diffusers instead")
    rank = max(len(down) for _, down in erasure.low_rank.values())
    tensors: dict[str, Tensor] = {}
    for name, (up, down) in erasure.low_rank.items():
        up = nn.functional.pad(up.detach().cpu().float(), (0, rank - up.shape[1]))
        down = nn.functional.pad(down.detach().cpu().float(), (0, 0, 0, rank - len(down)))
        own = model.parameters()[name].shape
        stem = name.removesuffix(".weight")
        tensors[f"{stem}.lora_A.weight"] = down.reshape(rank, *own[1:]).contiguous()
        tensors[f"{stem}.lora_B.weight"] = up.reshape(own[0], rank, *(1,) * (len(own) - 2)).contiguous()
    with durably(path) as stream:
        stream.write(save(tensors, metadata={"format": "pt"}))


def check_exportable(erasure: Erasure) -> None:
    """Raise :class:`EraseBenchError` if weights alone are not the whole erasure, or there are none."""
    if erasure.guidance is not None:
        rule = to_json(erasure.guidance)["rule"]
        only = "" if erasure.weights or erasure.low_rank else " and nothing else"
        raise EraseBenchError(
            f"the erasure is a rule of guidance ({rule}){only}: weights cannot hold it, so it cannot be exported"
        )
    if not erasure.weights and not erasure.low_rank:
        raise EraseBenchError("the erasure changes nothing: there is nothing to export")


def _takes_lora(model: DiffusionModel, name: str) -> bool:
    part, _, inner = name.partition(".")
    stem, _, own = inner.rpartition(".")
    layer = getattr(model, part).get_submodule(stem)
    if part != "unet" and not stem.endswith(_TEXT_LAYERS):
        return False
    return own == "weight" and isinstance(layer, nn.Linear | nn.Conv2d)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
