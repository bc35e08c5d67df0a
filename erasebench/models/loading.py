"""Finding a model by name, and loading it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from erasebench.domains import DOMAINS, PHOTO, PICTUREBOOK, Domain
from erasebench.errors import EraseBenchError
from erasebench.files import hash_file_once, hash_files
from erasebench.models.families import FAMILIES, STABLE_DIFFUSION, STABLE_DIFFUSION_XL, Family
from erasebench.models.single_file import find_single_file, load_single_file
from erasebench.picturebook import pipeline_path, quiet
from erasebench.texts import shown

if TYPE_CHECKING:
    from erasebench.models.diffusion import DiffusionModel

SHAPES = "the shape of Stable Diffusion 1.x, 2.x or XL"
"""The shape that pipelines have to have."""


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded.

    Attributes:
        name: as the user wrote it.
        folder: of the diffusers pipeline; of a single file, its configuration, which is one without weights.
        domain: the name of one of :data:`~erasebench.domains.DOMAINS`.
        fingerprint: SHA-256 over the names and bytes of all files of its parts; of a single file, over its bytes and
            its configuration.
        steps: sampling steps unless the run says otherwise; ``guidance_scale`` likewise.
        family: what shape it has.
        file: the weights, if all are in a single file.
    """

    name: str
    folder: Path
    domain: str
    fingerprint: str
    steps: int
    guidance_scale: float
    family: Family = STABLE_DIFFUSION
    file: Path | None = None

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files that are loaded: the single file, or those of each network's folder."""
        if self.file:
            return [self.file]
        return [path for part in self.family.networks for path in _weight_files(self.folder / part)]


def find_model(name: str) -> ModelSource:
    """Find ``"picturebook"``, a diffusers folder, a single file, or a model of the Hugging Face hub.

    Torch is not imported.

    Raises:
        EraseBenchError: the folder or the file is no Stable-Diffusion-shaped model or holds no weights in safetensors,
            or the hub model cannot be had.
    """
    if name == "picturebook":
        return _source(name, pipeline_path(), PICTUREBOOK, STABLE_DIFFUSION)
    single = find_single_file(name)
    if single:
        file, folder = single
        hashes = hash_file_once(file), hash_files(folder, [path for path in folder.rglob("*") if path.is_file()])
        fingerprint = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        family = _family_of_folder(folder)
        return ModelSource(name, folder, PHOTO.name, fingerprint, PHOTO.steps, PHOTO.guidance_scale, family, file)
    folder = Path(name)
    if not folder.exists():
        folder = _from_hub(name)
    family = _family_of_folder(folder)
    _check_weights(folder, family)
    return _source(name, folder, PHOTO, family)


def _weight_files(part: Path) -> list[Path]:
    """The safetensors files of a network's folder; copies in other precisions, as model.fp16.safetensors, are left."""
    return [path for path in sorted(part.glob("*.safetensors")) if len(path.suffixes) == 1]


def _check_weights(folder: Path, family: Family) -> None:
    """Raise unless each network has weights that can be loaded without unpickling anything."""
    for part in (folder / name for name in family.networks):
        if _weight_files(part):
            continue
        variant = next((path.suffixes[0][1:].partition("-")[0] for path in sorted(part.glob("*.safetensors"))), "")
        why, option = "holds no .safetensors file, and to load its other files may run code; if you trust them", ""
        if variant:
            why, option = (
                f"holds its weights only as the variant {variant}; to have them looked for",
                f", variant='{variant}'",
            )
        raise EraseBenchError(
            f'{part} {why}, convert the model: python -c "from diffusers import {family.pipeline} as P; '
            f"P.from_pretrained('{folder}'{option}).save_pretrained('NEW')\""
        )


def _source(name: str, folder: Path, domain: Domain, family: Family) -> ModelSource:
    files = (path for part in family.parts for path in (folder / part).rglob("*") if path.is_file())
    fingerprint = hash_files(folder, files)
    return ModelSource(name, folder, domain.name, fingerprint, domain.steps, domain.guidance_scale, family)


def load_model(source: ModelSource, device: str = "auto", dtype: str = "auto") -> DiffusionModel:
    """Load a model.

    Args:
        source: what :func:`find_model` found.
        device: ``"auto"`` (a GPU where there is one), or as torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: ``"auto"`` (``bfloat16`` on a GPU, ``float32`` elsewhere), ``"float32"`` or ``"bfloat16"``.

    Raises:
        EraseBenchError: the device is not there, or diffusers cannot load the folder.
    """
    import torch

    device = resolve_device(device)
    precision = resolve_dtype(dtype, device)
    return _model_class(source.family)(load_stock(source), source.domain, device, getattr(torch, precision))


def _model_class(family: Family) -> Callable[..., DiffusionModel]:
    model_class: Callable[..., DiffusionModel] = resolve_name(family.model)
    return model_class


def load_stock(source: ModelSource) -> Any:
    """Load a model as a stock pipeline of its family on the CPU, its weights in float32.

    Raises:
        EraseBenchError: diffusers cannot load the folder or the single file.
    """
    import diffusers

    quiet()
    family = source.family
    if source.file:
        return load_single_file(source.file, source.folder, family)
    try:
        # The index of a model from the hub also lists parts that are not downloaded.
        pipeline = getattr(diffusers, family.pipeline).from_pretrained(
            source.folder, local_files_only=True, use_safetensors=True, **dict.fromkeys(family.unused)
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EraseBenchError(f"diffusers cannot load {source.folder}: {error}") from error
    # Left to themselves, text encoders keep the precision of their file.
    for name in family.text_encoders:
        getattr(pipeline, name).float()
    return pipeline


def describe_pipeline(pipeline: Any, domain: str | None = None) -> ModelSource:
    """The source that a pipeline in memory is.

    Args:
        pipeline: a stock ``StableDiffusionPipeline`` or ``StableDiffusionXLPipeline``.
        domain: what it draws; if omitted ``"picturebook"`` for Picturebook, and ``"photo"`` for any other.

    Raises:
        EraseBenchError: it is none, or its weights are not all its own or not all in one place.
    """
    import diffusers

    family = next((one for one in FAMILIES.values() if isinstance(pipeline, getattr(diffusers, one.pipeline))), None)
    if family is None:
        known = ", ".join(f"a {one.pipeline}" for one in FAMILIES.values())
        raise EraseBenchError(
            f"{known} or a model's name is needed, not {type(pipeline).__name__}: only models of {SHAPES} can be erased"
        )
    missing = [part for part in family.parts if getattr(pipeline, part) is None]
    if missing:
        raise EraseBenchError(f"the pipeline lacks {', '.join(missing)}")
    for part in (getattr(pipeline, name) for name in family.networks):
        if getattr(part, "peft_config", None):
            raise EraseBenchError("the pipeline has a LoRA; call fuse_lora() and unload_lora_weights() on it first")
        if hasattr(part, "_hf_hook"):
            raise EraseBenchError("parts of the pipeline are offloaded; call remove_all_hooks() on it first")
    name = str(pipeline.name_or_path or "a pipeline in memory")
    is_picturebook = Path(name).resolve() == pipeline_path().resolve()
    model_domain = DOMAINS[domain] if domain else PICTUREBOOK if is_picturebook else PHOTO
    return ModelSource(name, Path(name), model_domain.name, "", model_domain.steps, model_domain.guidance_scale, family)


def copy_model(pipeline: Any, source: ModelSource, device: str, dtype: str) -> DiffusionModel:
    """Copy a pipeline's parts, their weights in float32.

    Args:
        pipeline: a stock pipeline; it is left as it was, where it was.
        source: what is known of it.
        device: where the copy is.
        dtype: what the copy computes in: ``"float32"`` or ``"bfloat16"``.
    """
    import torch

    family = source.family
    networks = {name: deepcopy(getattr(pipeline, name)) for name in family.networks}
    for network in networks.values():
        if network.dtype != torch.float32:  # diffusers logs a remark at every conversion
            network.float()
    shared = {name: getattr(pipeline, name) for name in ("config", "scheduler", *family.tokenizers)}
    parts = SimpleNamespace(**shared, **networks)
    return _model_class(family)(parts, source.domain, device, getattr(torch, dtype))


def resolve_device(device: str, elsewhere: bool = False) -> str:
    """The device that ``"auto"`` stands for on this machine; others are checked.

    Args:
        device: as somebody wrote it.
        elsewhere: it is one of other machines, which may have what this one has not.

    Raises:
        EraseBenchError: it is unknown or not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise EraseBenchError(f"unknown device '{device}'; auto, cpu or cuda[:number]")
    if elsewhere:
        return device
    there = torch.cuda.device_count()
    if device != "cpu" and not there:
        raise EraseBenchError("no CUDA device is available; use --device cpu")
    if device != "cpu" and int(device.partition(":")[2] or 0) >= there:
        raise EraseBenchError(f"there is no device '{device}': the machine's are cuda:0 to cuda:{there - 1}")
    return device


def resolve_dtype(dtype: str, device: str) -> str:
    """The precision that ``"auto"`` stands for on a device: mixed precision pays on GPUs."""
    if dtype == "auto":
        return "float32" if device.startswith("cpu") else "bfloat16"
    return dtype


def _family_of_folder(folder: Path) -> Family:
    index = folder / "model_index.json"
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise EraseBenchError(
            f"{folder} is no diffusers pipeline: it has no model_index.json (a folder as save_pretrained writes it is "
            "needed, or a single .safetensors file)"
        ) from None
    except ValueError as error:
        raise EraseBenchError(f"{index} is corrupt: {error}") from None
    if not isinstance(listed, dict):
        raise EraseBenchError(f"{index} is corrupt: it holds no JSON object")
    family = STABLE_DIFFUSION_XL if "text_encoder_2" in listed else STABLE_DIFFUSION
    missing = [part for part in family.parts if part not in listed or not (folder / part).is_dir()]
    if missing:
        kind = listed.get("_class_name")
        of_family = kind in [known.pipeline for known in FAMILIES.values()]
        own = "" if of_family else f" (its model_index.json says {shown(kind)})"
        raise EraseBenchError(f"{folder} is no Stable-Diffusion-shaped pipeline{own}: it lacks {', '.join(missing)}")
    unlike = _unlike(folder)
    if unlike:
        raise EraseBenchError(f"{folder} is not of {SHAPES}: {unlike}")
    return family


def _unlike(folder: Path) -> str | None:
    """The trait that sets a pipeline apart from those that are sampled from a prompt and noise alone."""
    path = folder / "unet" / "config.json"
    try:
        unet = json.loads(path.read_text(encoding="utf-8"))
        channels = unet["in_channels"], unet["out_channels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EraseBenchError(f"{path} is missing or corrupt: {error}") from None
    if channels[0] != channels[1]:
        return f"its U-Net reads {channels[0]} channels and gives {channels[1]}, as those for inpainting and the like"
    return None


def _from_hub(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise EraseBenchError(f"no model '{name}': neither 'picturebook', nor a folder, nor a hub id like 'org/name'")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    parts = dict.fromkeys(part for family in FAMILIES.values() for part in family.parts)
    patterns = ["model_index.json", *(f"{part}/*" for part in parts)]
    ignored = ["*.bin", "*.ckpt", "*.msgpack", "*.onnx*", "*/openvino*"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EraseBenchError(
            f"the hub model '{name}' is not on this machine and cannot be downloaded ({type(error).__name__}); where "
            f"there is a network run `hf download {name}`, or give a folder: --model FOLDER"
        ) from error
