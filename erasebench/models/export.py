"""Erasures for other programs.

For stock diffusers: a pipeline, a pipeline's folder, or a LoRA.  For ComfyUI, A1111 and diffusers: a single file with
the whole model, or a LoRA in kohya's layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.files import durably, replace_folder, sync
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure, check_fits
from erasebench.models.families import STABLE_DIFFUSION_XL
from erasebench.models.guidance import to_json
from erasebench.models.original_layout import to_original_layout, unet_names
from erasebench.models.single_file import model_spec

LORA = "pytorch_lora_weights.safetensors"
"""The file that ``load_lora_weights`` looks for in a folder."""
SINGLE_FILE, KOHYA_LORA = "model.safetensors", "lora.safetensors"
RANK = 64
"""The rank of a kohya LoRA of a change that is not low-rank, unless the user says otherwise."""
_TEXT_LAYERS = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")
"""The layers of text encoders in which diffusers looks for a LoRA."""
_EXACT = 1e-5
"""A relative error that is nothing but rounding."""
_MAX_NAMES = 5
"""The number of parameters that a message names."""


def export_pipeline(model: DiffusionModel, erasure: Erasure, base: Path | None, folder: Path) -> None:
    """Write the erased model as a plain diffusers pipeline, which ``from_pretrained`` of its class loads.

    Args:
        model: the unerased model; it is left as it was.
        erasure: what to apply to it.
        base: the model's folder, whose tokenizers are copied as they are: each version of transformers reads other
            files; None if the model is of a single file, which has none.
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
            if base is None:
                # The files that transformers 4 reads; the others are there.
                getattr(model, name).backend_tokenizer.model.save(str(partial / name))
            else:
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


def _as_given(part: Any, model_part: Any) -> Any:
    """A part in the precision and the mode of a given one."""
    if part.dtype != model_part.dtype:  # diffusers logs a remark at every conversion
        part.to(model_part.dtype)
    part.train(model_part.training)
    for parameter, original in zip(part.parameters(), model_part.parameters(), strict=True):
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
    tensors: dict[str, Tensor] = {}
    for name, (up, down) in _as_layers(model, erasure.low_rank).items():
        stem = name.removesuffix(".weight")
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    _write(tensors, path, {})


def _as_layers(model: DiffusionModel, factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of one rank and of the shapes of their layers, in float32 on the CPU.

    A convolution's kernel is in ``down``.
    """
    rank = max(len(down) for _, down in factors.values())
    layers = {}
    for name, (up, down) in factors.items():
        up = nn.functional.pad(up.detach().cpu().float(), (0, rank - up.shape[1]))
        down = nn.functional.pad(down.detach().cpu().float(), (0, 0, 0, rank - len(down)))
        own = model.parameters()[name].shape
        up = up.reshape(own[0], rank, *(1,) * (len(own) - 2))
        layers[name] = up.contiguous(), down.reshape(rank, *own[1:]).contiguous()
    return layers


def _write(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    with durably(path) as stream:
        partial = Path(stream.name)
        mode = partial.stat().st_mode
        # Safetensors puts a file of its own there, which only its owner may read.
        save_file(tensors, partial, {"format": "pt", **metadata})
        partial.chmod(mode)
        sync(partial)


def export_single_file(model: DiffusionModel, erasure: Erasure, path: Path) -> None:
    """Write the whole erased model in the layout of the original Stable Diffusion code, in float32.

    Its header says, as Stability AI's ModelSpec does, what the U-Net predicts, which the weights do not tell.

    Args:
        model: the unerased model; it is left as it was.
        erasure: what to apply to it.
        path: the file.

    Raises:
        EraseBenchError: the erasure has a guidance rule, or changes what the model does not have.
    """
    check_exportable(erasure)
    with model.erased(erasure):
        _write(to_original_layout(model), path, model_spec(model))


@dataclass(frozen=True)
class LoraFit:
    """The fit of a LoRA to the change that it was made of.

    Attributes:
        rank: of all its factors.
        relative_error: Frobenius norm of what it lacks of the change, over that of the change; in 0..1.
        omissions: parameters of the change that a LoRA cannot hold: biases, norms, embeddings.
    """

    rank: int
    relative_error: float
    omissions: tuple[str, ...]

    def __str__(self) -> str:
        error = "exact" if self.relative_error < _EXACT else f"relative error {self.relative_error:.2g}"
        omissions = f"; no LoRA can hold {_named(list(self.omissions), 1)}" if self.omissions else ""
        return f"rank {self.rank}, {error}{omissions}"


def export_kohya_lora(model: DiffusionModel, erasure: Erasure, path: Path, rank: int = RANK) -> LoraFit:
    """Write an erasure as a LoRA in the layout of kohya's sd-scripts.

    Low-rank changes are written as they are; of others the best approximation of a rank (Eckart and Young 1936), by
    singular values.  Alpha is the rank: programs scale the factors by ``alpha / rank``.  Diffusers cannot read the LoRA
    of a text encoder in which no output projection of attention changes.

    Args:
        model: the unerased model; it is left as it was.
        erasure: what to write.
        path: the file.
        rank: of changes that are not low-rank, at least 1.

    Raises:
        EraseBenchError: the erasure has a guidance rule, or a LoRA can hold nothing of it.
    """
    check_exportable(erasure)
    parameters = model.parameters()
    check_fits(erasure, parameters)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    omissions: list[str] = []
    residual = total = 0.0
    for name in (*erasure.weights, *erasure.low_rank):
        change = _change(erasure, name, parameters[name])
        if not change.any():
            continue
        total += float(change.square().sum())
        if not _takes_lora(model, name):
            omissions.append(name)
            residual += float(change.square().sum())
            continue
        factors[name] = erasure.low_rank[name] if name in erasure.low_rank else _truncate(change.flatten(1), rank)
        up, down = (factor.to(change.device).float() for factor in factors[name])
        residual += float((change.flatten(1) - up @ down).square().sum())
    if not total:
        raise EraseBenchError("the erasure changes nothing: there is nothing to export")
    if not factors:
        raise EraseBenchError(f"a LoRA cannot change {_named(omissions)}; export the erasure as single-file instead")
    tensors: dict[str, Tensor] = {}
    layers = _as_layers(model, factors)
    # For Stable Diffusion XL sd-scripts has the original U-Net, else that of diffusers.
    unet = unet_names(model.unet.state_dict()) if model.family is STABLE_DIFFUSION_XL else {}
    common_rank = max(len(down) for _, down in layers.values())
    for name, (up, down) in layers.items():
        stem = _kohya_name(model, name, unet)
        tensors |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
        tensors[f"{stem}.alpha"] = torch.tensor(float(common_rank))
    fit = LoraFit(common_rank, (residual / total) ** 0.5, tuple(omissions))
    about = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(fit.rank),
        "ss_network_alpha": str(fit.rank),
        "modelspec.description": f"the change that an erasure makes: {fit}",
    }
    _write(tensors, path, about | model_spec(model, "/lora"))
    return fit


def _change(erasure: Erasure, name: str, own: Tensor) -> Tensor:
    """The difference that an erasure adds to a parameter."""
    if name in erasure.weights:
        return erasure.weights[name].to(own.device).float() - own.detach().float()
    up, down = (factor.to(own.device).float() for factor in erasure.low_rank[name])
    return (up @ down).view(own.shape)


def _truncate(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors of the best approximation of a matrix ``[out, in]``, of no more ranks than it has."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    own = int((values > values[0] * max(change.shape) * torch.finfo(values.dtype).eps).sum())
    count = min(rank, own)
    root = values[:count].sqrt()
    return left[:, :count] * root, root[:, None] * right[:count]


def _kohya_name(model: DiffusionModel, name: str, unet: Mapping[str, str]) -> str:
    """The name of a layer in a LoRA of kohya's.

    Args:
        model: whose layer it is.
        name: of the layer's weight.
        unet: other names of parameters of the U-Net than those of diffusers.
    """
    part, _, inner = name.partition(".")
    if part == "unet":
        prefix, inner = "unet", unet.get(inner, inner)
    else:
        encoders = model.family.text_encoders
        number = encoders.index(part) + 1 if len(encoders) > 1 else ""
        prefix, inner = f"te{number}_text_model", inner.removeprefix("text_model.")
    return f"lora_{prefix}_{inner.removesuffix('.weight').replace('.', '_')}"


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


def _named(names: list[str], count: int = _MAX_NAMES) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
