"""A checkpoint of the user's own: weights that someone else's code erased, as a row of the table.

Importing this module and :meth:`Checkpoint.identity` do without torch: planning needs no model.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from erasebench.errors import EraseBenchError, one_line
from erasebench.files import hash_file_once
from erasebench.models.lora import is_lora, low_rank, recorded_alphas
from erasebench.models.parameter_names import PARTS, parameter_name
from erasebench.plugins import EraseContext, Method
from erasebench.registry import METHODS
from erasebench.texts import check_text, shown

if TYPE_CHECKING:
    from torch import Tensor

    from erasebench.concepts import Concept
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure

WEIGHTS, GUIDANCE = "erasure.safetensors", "guidance.json"
"""An erasure's files: the names of ``erasebench.models.erasure``, whose import takes the seconds that torch needs."""
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_ADAPTERS = {"hada_": "LoHa", "lokr_": "LoKr", "dora_scale": "DoRA", "lora_mid": "a Tucker decomposition"}
"""Parts of the keys of adapters that are no plain LoRA, and what they are."""
_OF_XL = re.compile(r"^(lora_te[12]_|text_encoder_2\.)|transformer_blocks[._][1-9]")
"""The names of what only Stable Diffusion XL has: two text encoders, and several transformer blocks in an attention."""


@METHODS.register("checkpoint")
@dataclass(frozen=True)
class Checkpoint(Method):
    """Read a change of the U-Net, the text encoder or both.

    Attributes:
        path: a diffusers pipeline folder, or its ``unet`` or ``text_encoder`` folder; a file with a state dict, whole
            or partial, by the names of diffusers or of the original code (a single file), with a LoRA (of diffusers,
            peft or kohya), or with differences; or what ``erasebench erase`` left, a rule of guidance included.
        kind: ``full``: values that replace the model's.  ``delta``: differences that are added to the model's.
            ``auto``: a LoRA if the keys are those of one, else ``full``.
    """

    seeded: ClassVar[bool] = False

    path: str
    kind: Literal["auto", "full", "delta"] = "auto"

    @property
    def changes_text_encoder(self) -> bool:
        """Whatever a file holds, it may be of the text encoder."""
        return True

    def identity(self) -> dict[str, str]:
        """SHA-256 of the file, or of the hashes of several."""
        own = erasure_folder(Path(self.path))
        files = [own / WEIGHTS, own / GUIDANCE] if own else [file for _, file in find_files(Path(self.path))]
        settings = [file.with_name("adapter_config.json") for file in files]
        hashes = [hash_file_once(file) for file in [*files, *settings] if file.is_file()]
        return {"sha256": hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()}

    def check_model(self, folder: Path) -> None:
        """Read the files and compare names and shapes with those of the model's files."""
        _check(self, self.identity()["sha256"], folder)

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Read the files; that they erase the concepts is the user's word."""
        import torch

        from erasebench.models.erasure import Erasure

        parameters = model.parameters()
        read = self.read(parameters)
        if read.low_rank or erasure_folder(Path(self.path)):
            return read
        own = {name: parameters[name].detach().cpu() for name in read.weights}
        cast = {name: tensor.to(own[name].dtype) for name, tensor in read.weights.items()}
        if self.kind == "delta":
            return Erasure({name: own[name] + tensor for name, tensor in cast.items()})
        return Erasure({name: tensor for name, tensor in cast.items() if not torch.equal(tensor, own[name])})

    def read(self, parameters: Mapping[str, Tensor]) -> Erasure:
        """The contents of the files, by the model's names and of its shapes; of ``delta`` the differences.

        Args:
            parameters: the model's, whose values do not matter.

        Raises:
            EraseBenchError: the files are damaged, or of another model.
        """
        from erasebench.models.erasure import Erasure, check_fits
        from erasebench.models.original_layout import UNET, from_original_layout

        own_folder = erasure_folder(Path(self.path))
        if own_folder:
            return read_erasure(own_folder, parameters)
        files = find_files(Path(self.path))
        tensors = {prefix + key: tensor for prefix, file in files for key, tensor in read_tensors(file).items()}
        try:
            check_base(tensors, parameters, _titles(files))
            if any(key.startswith(UNET) for key in tensors):
                tensors = from_original_layout(tensors, list(parameters))
            if self.kind == "auto" and is_lora(tensors):
                erasure = Erasure(low_rank=low_rank(tensors, list(parameters), _alphas(files)))
            else:
                erasure = Erasure({parameter_name(key, list(parameters)): tensor for key, tensor in tensors.items()})
            check_fits(erasure, parameters)
        except EraseBenchError as error:
            raise EraseBenchError(f"{self.path}: {error}") from None
        return erasure


def _alphas(files: Sequence[tuple[str, Path]]) -> dict[str, float]:
    """The alphas recorded beside the keys of the LoRA in the first file of each part of a model."""
    by_prefix = {prefix: recorded_alphas(file) for prefix, file in reversed(files)}
    own = by_prefix[files[0][0]]
    if any(other != own for other in by_prefix.values()):
        raise EraseBenchError(
            "the LoRAs of its parts record different alphas, of which one alone would be read; put them into one file"
        )
    return own


@cache
def _check(checkpoint: Checkpoint, sha256: str, folder: Path) -> None:
    """Read a checkpoint of a hash for the model of a folder, once for all concepts."""
    import torch

    from erasebench.models.erasure import check_finite

    parameters: dict[str, Tensor] = {}
    for part in PARTS:
        for key, shape in _shapes(folder / part).items() if (folder / part).is_dir() else ():
            # Versions of transformers differ in whether the names of a text encoder begin so.
            for name in (key, key.removeprefix("text_model.")):
                parameters[f"{part}.{name}"] = torch.empty(shape, device="meta")
    try:
        check_finite(checkpoint.read(parameters))
    except FloatingPointError as error:
        raise EraseBenchError(f"{checkpoint.path}: {error}") from None


def _shapes(folder: Path) -> Mapping[str, Sequence[int]]:
    """The shapes of a part's weights: as its safetensors files say, or, if it has none, its configuration."""
    import torch

    from erasebench.models.single_file import read_header

    files = sorted(folder.glob("*.safetensors"))
    if files:
        return {name: shape for file in files for name, shape in read_header(file)[0].items()}
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    try:
        with torch.device("meta"):
            if folder.name == "unet":
                network = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
            else:
                encoder = CLIPTextModelWithProjection if folder.name == "text_encoder_2" else CLIPTextModel
                network = encoder(CLIPTextConfig.from_pretrained(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EraseBenchError(f"the configuration in {folder} cannot be read: {one_line(error)}") from None
    return {name: parameter.shape for name, parameter in network.named_parameters()}


def erasure_folder(path: Path) -> Path | None:
    """The folder that ``erasebench erase`` left, if the path is one or its file of weights."""
    folder = path.parent if path.name == WEIGHTS else path
    return folder if (folder / WEIGHTS).is_file() else None


def read_erasure(folder: Path, parameters: Mapping[str, Tensor]) -> Erasure:
    """The erasure that ``erasebench erase`` left.

    Raises:
        EraseBenchError: a file is damaged, or the erasure is one of another model.
    """
    from safetensors import SafetensorError

    from erasebench.models.erasure import Erasure, check_fits

    try:
        erasure = Erasure.load(folder)
        check_fits(erasure, parameters)
    except (EraseBenchError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise EraseBenchError(f"{folder}: {one_line(error)}") from None
    return erasure


def find_files(path: Path) -> list[tuple[str, Path]]:
    """The weight files of a path, each with what to put in front of its keys.

    Raises:
        EraseBenchError: there are none.
    """
    if path.is_file() and path.suffix in SUFFIXES:
        return [("", path)]
    if path.is_file():
        raise EraseBenchError(f"{path}: a checkpoint ends in {', '.join(SUFFIXES)}, or is a folder of diffusers")
    if not path.is_dir():
        raise EraseBenchError(f"the checkpoint {path} does not exist")
    folders = [(f"{part}.", path / part) for part in PARTS if (path / part).is_dir()] or [("", path)]
    paths = []
    for prefix, folder in folders:
        # A folder may hold the same weights in several formats and precisions: safetensors in full precision first.
        for suffix in SUFFIXES:
            files = sorted(folder.glob(f"*{suffix}"))
            plain = [file for file in files if ".fp16." not in file.name and ".non_ema." not in file.name]
            if files:
                paths += [(prefix, file) for file in plain or files]
                break
    if not paths:
        raise EraseBenchError(
            f"the folder {path} holds no weights ({', '.join(SUFFIXES)}), nor a unet folder with some"
        )
    return paths


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file; of a pickle, those at the top and in its ``state_dict``, ``unet`` and ``text_encoder``.

    Raises:
        EraseBenchError: the file is damaged, holds anything that would run code when it is loaded, or no tensor.
    """
    import torch
    from safetensors.torch import load_file

    loaded: Any
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of sparse tensors, which are refused below
            loaded = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise EraseBenchError(
            f"{file} holds more than tensors, and loading it could run code: refused; save its state dict as "
            f"safetensors ({reason})"
        ) from None
    except Exception as error:  # what a damaged file makes of its reader is anything
        raise EraseBenchError(f"{file} cannot be read: {one_line(error)}") from None
    tensors: dict[Any, Any] = dict(loaded) if isinstance(loaded, Mapping) else {}
    for wrapper, prefix in (("state_dict", ""), *((part, f"{part}.") for part in PARTS)):
        if isinstance(tensors.get(wrapper), Mapping):
            tensors |= {prefix + _name(key, file): tensor for key, tensor in tensors.pop(wrapper).items()}
    # Text encoders of older versions of transformers also store the numbers of the positions, and whole single files
    # moving averages of the weights, with their count.
    tensors = {
        _name(key, file): tensor
        for key, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
        and not (isinstance(key, str) and (key.endswith(".position_ids") or key.startswith("model_ema.")))
    }
    if not tensors:
        raise EraseBenchError(f"{file} holds no tensors")
    for key, tensor in tensors.items():
        _check_tensor(tensor, f"{file}: '{key}'", key.endswith(".alpha"))
    return tensors


def _name(key: object, file: Path) -> str:
    if not isinstance(key, str):
        raise EraseBenchError(f"{file} holds something under the key {shown(key)}, which is no name of a parameter")
    check_text(key, str(file))
    return key


def _check_tensor(tensor: Tensor, where: str, is_alpha: bool) -> None:
    """Raise unless a tensor holds ordinary numbers, each of them its own."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise EraseBenchError(
            f"{where} is a sparse, quantized or empty tensor; save it dense, as floating-point numbers"
        )
    if is_alpha and tensor.numel() == 1 and not tensor.is_complex():
        return
    if is_alpha or not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise EraseBenchError(
            f"{where} holds {tensor.numel():,} numbers of type {kind}; weights are floating-point numbers"
        )
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise EraseBenchError(
            f"{where} holds fewer numbers than its shape, {list(tensor.shape)}; save a contiguous copy"
        )


def _titles(files: Sequence[tuple[str, Path]]) -> set[str]:
    """The titles of the kinds of models that files say in their headers that they are of."""
    from erasebench.models.single_file import SUFFIX, read_header, recorded_title

    return {title for _, file in files if file.suffix == SUFFIX and (title := recorded_title(read_header(file)[1]))}


def check_base(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], titles: Collection[str] = ()) -> None:
    """Raise if a file was made for another kind of model, or is no plain LoRA.

    Args:
        tensors: the file's.
        parameters: the model's.
        titles: of the kinds of models that it says it is of.
    """
    from erasebench.models.single_file import KINDS, SDXL, find_transformer

    for part, adapter in _ADAPTERS.items():
        key = next((key for key in tensors if part in key), None)
        if key:
            raise EraseBenchError(f"'{key}' is of {adapter}, which is not read; merge it and use the merged weights")
    other = find_transformer(tensors)
    if other:
        raise EraseBenchError(f"it was made for {other}; the model has a U-Net")
    own = next((tensor.shape[1] for name, tensor in parameters.items() if name.endswith("attn2.to_k.weight")), None)
    for key, tensor in tensors.items():
        is_input = re.search(r"attn2[._](processor[._])?to_k([._]lora[._](A|down)(\.default)?)?\.weight$", key)
        for kind in KINDS if is_input and tensor.ndim == 2 else ():
            if tensor.shape[1] == kind.text_width != own:
                raise EraseBenchError(
                    f"it was made for {kind.title}: its cross-attention reads {kind.text_width} numbers a token, the "
                    f"model's {own}"
                )
    is_xl = any(_OF_XL.search(name) for name in parameters)
    key = next((key for key in tensors if _OF_XL.search(key)), None)
    if key and not is_xl:
        raise EraseBenchError(f"its key '{key}' shows that it was made for {SDXL}, and the model is another")
    title = SDXL if is_xl else next((kind.title for kind in KINDS if kind.text_width == own), None)
    for other in sorted(titles) if title else ():
        if other != title:
            raise EraseBenchError(f"its header says that it was made for {other}, and the model is of {title}")
