"""Models in a single file: which kind a file is of, told from its header, and loading it without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erasebench.errors import EraseBenchError, one_line
from erasebench.models.families import Family
from erasebench.models.original_layout import CLIP, CLIP_XL, OPEN_CLIP, OPEN_CLIP_XL, UNET, VAE

SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""The endings of the names of files that are never loaded as models."""
PREDICTIONS = ("epsilon", "v_prediction")
_CONFIGURATIONS = Path(__file__).with_name("configurations")
_MODEL_SPEC = {"epsilon": "epsilon", "v": "v_prediction"}
"""The prediction types of the header's ``modelspec.prediction_type`` (Stability AI's ModelSpec), and diffusers'."""


@dataclass(frozen=True)
class Kind:
    """A kind of single files.

    Attributes:
        title: what messages call it.
        folder: its configuration, one of ``configurations``: a diffusers pipeline without weights.
        text_width: numbers that its cross-attention reads of each token.
        prediction: what its U-Net predicts, as diffusers calls it.
        resolution: pixels a side that it was trained for.
        architecture: its ``modelspec.architecture``.
        text_encoders: how the names of the weights of each begin.
    """

    title: str
    folder: str
    text_width: int
    prediction: str
    resolution: int
    architecture: str
    text_encoders: tuple[str, ...]

    @property
    def configuration(self) -> Path:
        """The folder of its configuration."""
        return _CONFIGURATIONS / self.folder


SD1, SD2, SDXL = "Stable Diffusion 1.x", "Stable Diffusion 2.x", "Stable Diffusion XL"
KINDS = (
    Kind(SD1, "sd1", 768, "epsilon", 512, "stable-diffusion-v1", (CLIP,)),
    Kind(SD2, "sd2-512", 1024, "epsilon", 512, "stable-diffusion-v2-512", (OPEN_CLIP,)),
    Kind(SD2, "sd2-768-v", 1024, "v_prediction", 768, "stable-diffusion-v2-768-v", (OPEN_CLIP,)),
    Kind(SDXL, "sdxl", 2048, "epsilon", 1024, "stable-diffusion-xl-v1-base", (CLIP_XL, OPEN_CLIP_XL)),
)
_ARCHITECTURE, _KOHYA_BASE = "modelspec.architecture", "ss_base_model_version"
_RECORDED = {
    "stable-diffusion-v1": SD1,
    "stable-diffusion-v2": SD2,
    "stable-diffusion-xl": SDXL,
    "sd_v1": SD1,
    "sd_v2": SD2,
    "sdxl": SDXL,
}
"""The beginning of a header's architecture (ModelSpec) or base model (kohya's sd-scripts), and the kind's title."""


def find_single_file(name: str) -> tuple[Path, Path] | None:
    """The file that a model's name says, and the folder of its configuration; None if it names no file.

    Args:
        name: a path, with ``[prediction=epsilon]`` or ``[prediction=v_prediction]`` behind it where the file does not
            tell.  Torch is not imported.

    Raises:
        EraseBenchError: the file is not there, is damaged, or is of a kind that cannot be loaded.
    """
    path, prediction = _split(name)
    if path.is_dir() or (path.suffix not in (SUFFIX, *PICKLES) and not path.is_file()):
        return None
    if not path.exists():
        raise EraseBenchError(f"the model {path} does not exist")
    if path.suffix != SUFFIX:
        raise EraseBenchError(
            f"{path} is no {SUFFIX} file: other files are not loaded as models, for to load a pickle may run code; "
            "convert it to safetensors, or give a diffusers folder"
        )
    shapes, metadata = read_header(path)
    return path, _kind(path, shapes, metadata, prediction).configuration


def _split(name: str) -> tuple[Path, str | None]:
    """The path of a name, and the prediction that the name says."""
    match = re.fullmatch(r"(.+\.\w+)\[(.*)\]", name)
    if match is None or Path(name).exists():
        return Path(name), None
    key, _, value = match[2].partition("=")
    if key.strip() != "prediction" or value.strip() not in PREDICTIONS:
        ways = " or ".join(f"[prediction={prediction}]" for prediction in PREDICTIONS)
        raise EraseBenchError(f"'[{match[2]}]' in '{name}' is not known; a model in a single file takes {ways}")
    return Path(match[1]), value.strip()


def read_header(path: Path) -> tuple[dict[str, list[int]], Mapping[str, str]]:
    """The shape of each tensor of a safetensors file, by its name, and the metadata.

    Raises:
        EraseBenchError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as opened:
            shapes = {key: list(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            return shapes, opened.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise EraseBenchError(f"{path} cannot be read: {one_line(error)}") from None


def _kind(path: Path, shapes: Mapping[str, list[int]], metadata: Mapping[str, str], prediction: str | None) -> Kind:
    """The kind of a file.

    Raises:
        EraseBenchError: it is none of :data:`KINDS`, not all there, or does not tell what its U-Net predicts.
    """
    other = _other(path, shapes)
    if other:
        raise EraseBenchError(f"{path} is no model in a single file that can be loaded: {other}")
    width = next((shape[1] for key, shape in shapes.items() if _is_text_key(key, shape)), None)
    kinds = [kind for kind in KINDS if kind.text_width == width]
    if not kinds:
        known = {kind.text_width: kind.title for kind in KINDS}
        raise EraseBenchError(
            f"{path} is a single file of unknown kind: its cross-attention reads {width or 'no'} numbers a token; "
            f"known are {', '.join(f'{width} ({title})' for width, title in known.items())}; a file that was exported "
            'from another model is a method on that model: --methods "checkpoint[path=FILE]"'
        )
    parts = (VAE, *kinds[0].text_encoders)
    absent = [part for part in parts if not any(key.startswith(part) for key in shapes)]
    if absent:
        raise EraseBenchError(
            f"{path} is of {kinds[0].title}, but lacks a part: it has no weights {', '.join(f'{p}*' for p in absent)}"
        )
    recorded = _MODEL_SPEC.get(metadata.get("modelspec.prediction_type", ""))
    recorded = recorded or ("v_prediction" if "v_pred" in shapes else None)
    architecture = metadata.get(_ARCHITECTURE)
    recorded = recorded or next((kind.prediction for kind in kinds if kind.architecture == architecture), None)
    target = prediction or recorded or (kinds[0].prediction if len(kinds) == 1 else None)
    if target is None:
        ways = " or ".join(f"'{path}[prediction={k.prediction}]' (those for {k.resolution} pixels)" for k in kinds)
        raise EraseBenchError(f"{path} is of {kinds[0].title} and does not tell what its U-Net predicts: write {ways}")
    for kind in kinds:
        if kind.prediction == target:
            return kind
    raise EraseBenchError(
        f"{path} is of {kinds[0].title} and predicts {target}; of this kind only {kinds[0].prediction} is known"
    )


def _is_text_key(key: str, shape: list[int]) -> bool:
    return key.startswith(UNET) and key.endswith(".attn2.to_k.weight") and len(shape) == 2


def _other(path: Path, shapes: Mapping[str, list[int]]) -> str | None:
    """Say what a file is instead of a Stable Diffusion model that is sampled from a prompt and noise alone."""
    as_method = f'give the model that it belongs to, and --methods "checkpoint[path={path}]"'
    ends = [f"{UNET}{key}.weight" for key in ("input_blocks.0.0", "out.2")]
    # Whole models may hold keys that merged LoRAs left behind.
    if ends[0] not in shapes and any(re.search(r"[._]lora[._]|^lora_|\.(hada|lokr)_|\.alpha$", key) for key in shapes):
        return f"it is a LoRA; {as_method}"
    transformer = find_transformer(shapes)
    if transformer:
        return f"it is of {transformer}"
    if any(re.match(r"(unet\.|text_encoder\.)?(down_blocks|encoder\.layers|text_model)\.", key) for key in shapes):
        return f"it holds parts of a diffusers pipeline; {as_method}, or the pipeline's folder"
    for key in ends:
        if len(shapes.get(key, [])) != 4:
            return f"it has no weight {key}, as Stable Diffusion's U-Nets have"
    inputs, outputs = shapes[ends[0]][1], shapes[ends[1]][0]
    if inputs != outputs:
        return f"its U-Net reads {inputs} channels and gives {outputs}, as those for inpainting and the like"
    if any(key.startswith("conditioner.embedders.0.model.") for key in shapes):
        return "it is a refiner of Stable Diffusion XL, which draws over images of another model"
    added = any(key.startswith(f"{UNET}label_emb.") for key in shapes)  # only XL's is made of the prompt and the size
    if any(key.startswith("noise_augmentor.") or (added and key.startswith(OPEN_CLIP)) for key in shapes):
        return "it is of unCLIP, which draws from the embedding of an image"
    if "edm_mean" in shapes:
        return "it is of Playground 2.5, whose noise levels are not those of Stable Diffusion XL"
    return None


def recorded_title(metadata: Mapping[str, str]) -> str | None:
    """The title of the kind that a header says its weights, or the model of a LoRA, are of; None if of none known."""
    recorded = [metadata.get(key, "") for key in (_ARCHITECTURE, _KOHYA_BASE)]
    return next((title for start, title in _RECORDED.items() if any(r.startswith(start) for r in recorded)), None)


def model_spec(model: Any, adapter: str = "") -> dict[str, str]:
    """The metadata of a file made of a model: Stability AI's ModelSpec, with its kind if that is known.

    Args:
        model: a :class:`~erasebench.models.diffusion.DiffusionModel`.
        adapter: ``"/lora"``, or "" for the whole model.
    """
    width = model.unet.config.cross_attention_dim
    kinds = [kind for kind in KINDS if (kind.text_width, kind.prediction) == (width, model.prediction_type)]
    names = {prediction: name for name, prediction in _MODEL_SPEC.items()}
    pixels = model.latent_shape[1] * model.scale_factor
    return {
        "modelspec.sai_model_spec": "1.0.0",
        **({_ARCHITECTURE: kinds[0].architecture + adapter} if kinds else {}),
        "modelspec.implementation": "diffusers" if adapter else "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "erased by erasebench",
        "modelspec.resolution": f"{pixels}x{pixels}",
        "modelspec.prediction_type": names[model.prediction_type],
    }


def find_transformer(keys: Collection[str]) -> str | None:
    """The model whose network is a transformer and no U-Net that keys of weights are of, if any."""
    for key in keys:
        if re.search(r"(^|[._])(joint_blocks|joint_transformer_blocks)[._]", key):
            return "Stable Diffusion 3, whose network is a transformer"
        if re.search(r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]", key):
            return "FLUX or one like it, whose network is a transformer"
    # FLUX's have the like beside the blocks above; a U-Net's stand within its levels.
    if any(re.match(r"(base_model\.model\.)?(transformer\.)?transformer_blocks\.", key) for key in keys):
        return "Stable Diffusion 3, FLUX or one like them, whose network is a transformer"
    return None


def load_single_file(path: Path, configuration: Path, family: Family) -> Any:
    """Load a single file as the stock pipeline of its family, on the CPU, in float32.

    Weights that a file holds twice, as they were at the end of training and as a moving average (``model_ema``), are
    the former, as in ComfyUI and A1111.

    Args:
        path: the file.
        configuration: a diffusers pipeline without weights; if its tokenizers have no vocabulary, it is CLIP's.
        family: which shape the pipeline has.

    Raises:
        EraseBenchError: diffusers cannot load the file, or it lacks weights.
    """
    import diffusers
    import torch
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    tokenizers = {name: load_tokenizer(configuration / name) for name in family.tokenizers}
    try:
        pipeline = getattr(diffusers, family.pipeline).from_single_file(
            str(path), config=str(configuration), local_files_only=True, **dict.fromkeys(family.unused), **tokenizers
        )
    except NotImplementedError as error:  # diffusers moves weights that have no values
        raise EraseBenchError(f"{path} lacks weights of its U-Net or its VAE") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SingleFileComponentError) as error:
        raise EraseBenchError(f"diffusers cannot load {path}: {one_line(error)}") from error
    for part in family.networks:
        for name, parameter in getattr(pipeline, part).named_parameters():
            if parameter.is_meta:
                raise EraseBenchError(f"{path} lacks weights of its {part}: {name}, in diffusers' words")
            # As diffusers leaves them they lie where the file has them, and what is computed from numbers that are not
            # aligned differs in the last digit.
            parameter.data = parameter.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return pipeline


def load_tokenizer(folder: Path) -> Any:
    """Load a CLIP tokenizer; where a folder has settings only, the vocabulary is CLIP's, which OpenCLIP brings."""
    from transformers import CLIPTokenizer

    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    from open_clip.tokenizer import SimpleTokenizer

    clip = SimpleTokenizer()
    names = {"<start_of_text>": settings["bos_token"], "<end_of_text>": settings["eos_token"]}
    return CLIPTokenizer(
        vocab={names.get(token, token): number for token, number in clip.encoder.items()},
        merges=list(clip.bpe_ranks),
        model_max_length=settings["model_max_length"],
        pad_token=settings["pad_token"],
    )
