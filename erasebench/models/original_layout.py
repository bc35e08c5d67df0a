"""The layout of single-file checkpoints: what the original Stable Diffusion code calls the weights of diffusers.

ComfyUI and A1111 read it, and diffusers' ``from_single_file``.  Source: the modules of CompVis/latent-diffusion
(``ldm/modules/diffusionmodules``), of OpenAI's CLIP as transformers names them (Stable Diffusion 1.x), and of OpenCLIP
(Stable Diffusion 2.x; XL has both).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
"""The beginnings of the names of each part."""
_TEXT_PARTS = {CLIP: "text_encoder", CLIP_XL: "text_encoder", OPEN_CLIP: "text_encoder", OPEN_CLIP_XL: "text_encoder_2"}
PARTS = {UNET: "unet", VAE: "vae", **_TEXT_PARTS}
"""The network of a pipeline that the names of each part are of."""

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_PROJECTION = re.compile(r"encoder\.layers\.(\d+)\.self_attn\.[qkv]_proj\.(weight|bias)")


def unet_names(names: Collection[str]) -> dict[str, str]:
    """The original name of each parameter of a U-Net, without :data:`UNET`.

    The original numbers its blocks through: one for each resnet, with the attention after it, and one for each
    downsampler; an upsampler shares the block of the resnet before it.

    Args:
        names: all of diffusers'; the number of resnets in a block is read from them.
    """
    resnets = len({name.split(".")[3] for name in names if name.startswith("down_blocks.0.resnets.")})
    attentive = {name.split(".")[1] for name in names if re.match(r"up_blocks\.\d+\.attentions\.", name)}

    def rename(name: str) -> str:
        stem, _, own = name.rpartition(".")
        if stem in _UNET_ENDS:
            return f"{_UNET_ENDS[stem]}.{own}"
        side, _, rest = name.partition(".")
        if side == "mid_block":
            kind, number, rest = rest.split(".", 2)
            place = f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}"
        else:
            block, kind, number, rest = rest.split(".", 3)
            first, layer = int(block) * (resnets + 1), int(number)
            if kind == "downsamplers":
                return f"input_blocks.{first + resnets + 1}.0.op.{own}"
            if kind == "upsamplers":
                return f"output_blocks.{first + resnets}.{2 if block in attentive else 1}.conv.{own}"
            slot = int(kind == "attentions")
            shift, blocks = (1, "input_blocks") if side == "down_blocks" else (0, "output_blocks")
            place = f"{blocks}.{first + layer + shift}.{slot}"
        if kind == "resnets":
            inner, _, own = rest.rpartition(".")
            rest = f"{_UNET_RESNET[inner]}.{own}"
        return f"{place}.{rest}"

    return {name: rename(name) for name in names}


def vae_names(names: Collection[str]) -> dict[str, str]:
    """The original name of each parameter of a VAE, without :data:`VAE`; its decoder is numbered from the image up."""
    last = max(int(name.split(".")[2]) for name in names if name.startswith("decoder.up_blocks."))

    def rename(name: str) -> str:
        name = name.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{last - int(match[1])}", name)
        name = name.replace("down_blocks.", "down.").replace(".resnets.", ".block.")
        name = name.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")
        attention = re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name)
        if attention:
            return f"{attention[1]}.mid.attn_1.{_VAE_ATTENTION[attention[2]]}.{attention[3]}"
        return name

    return {name: rename(name) for name in names}


def to_original_layout(model: Any) -> dict[str, Tensor]:
    """All weights of a model by their original names, on the CPU, in the precision that they have.

    Args:
        model: a :class:`~erasebench.models.diffusion.DiffusionModel`, or anything with its networks.
    """
    unet, vae = (part.state_dict() for part in (model.unet, model.vae))
    tensors = {UNET + original: unet[name] for name, original in unet_names(unet).items()}
    for name, original in vae_names(vae).items():
        # Its attention is made of convolutions of size 1.
        is_convolution = ".attentions.0.to_" in name and name.endswith(".weight")
        tensors[VAE + original] = vae[name][..., None, None] if is_convolution else vae[name]
    for encoder, prefix in _text_encoders(model):
        text = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
        own = _to_open_clip(text) if prefix in (OPEN_CLIP, OPEN_CLIP_XL) else text
        tensors |= {prefix + name: value for name, value in own.items()}
    # Buffers, such as the numbers of positions in older versions of transformers, follow from the sizes.
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items() if value.is_floating_point()}


def _text_encoders(model: Any) -> list[tuple[Any, str]]:
    """The text encoders of a model, each with how its names begin.

    Stable Diffusion 1.x has CLIP's, 2.x OpenCLIP's, which is known by its activation (GELU, where CLIP has quick GELU),
    XL both.
    """
    if hasattr(model, "text_encoder_2"):
        return [(model.text_encoder, CLIP_XL), (model.text_encoder_2, OPEN_CLIP_XL)]
    is_clip = model.text_encoder.config.hidden_act == "quick_gelu"
    return [(model.text_encoder, CLIP if is_clip else OPEN_CLIP)]


def from_original_layout(tensors: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """The U-Net and the text encoders of a single file, or parts of them, by diffusers' names.

    Everything else (VAE, moving averages, noise schedule) is left out, and of OpenCLIP what the model does not use: of
    Stable Diffusion 2.x the last layer and the projection.  Keys that have no name in diffusers stay as they are.

    Args:
        tensors: the file's.
        known: the model's parameters: ``"unet.<name>"``, ``"text_encoder.<name>"`` and so on.
    """
    unet = unet_names([name.removeprefix("unet.") for name in known if name.startswith("unet.")])
    names = {UNET + original: f"unet.{name}" for name, original in unet.items()}
    used = {name.replace(".text_model.", ".") for name in known}
    named: dict[str, Tensor] = {}
    for key, value in tensors.items():
        prefix = next((prefix for prefix in (UNET, *_TEXT_PARTS) if key.startswith(prefix)), "")
        name, part = key.removeprefix(prefix), _TEXT_PARTS.get(prefix)
        if prefix == UNET:
            named[names.get(key, key)] = value
        elif prefix in (CLIP, CLIP_XL):
            named[f"{part}.{name}"] = value
        elif prefix in (OPEN_CLIP, OPEN_CLIP_XL):
            pieces = {f"{part}.{own}": piece for own, piece in _from_open_clip(name, value).items()}
            named |= {own: piece for own, piece in pieces.items() if own in used}
    return named


def _to_open_clip(text: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder as OpenCLIP has it: queries, keys and values in one matrix, and the projection transposed."""
    import torch

    tensors: dict[str, Tensor] = {}
    for name, value in text.items():
        projection = _PROJECTION.fullmatch(name)
        if name == "text_projection.weight":
            tensors["text_projection"] = value.T
        elif name in _OPEN_CLIP_ENDS:
            tensors[_OPEN_CLIP_ENDS[name]] = value
        elif projection:
            layer, own = projection.groups()
            parts = [text[f"encoder.layers.{layer}.self_attn.{which}_proj.{own}"] for which in "qkv"]
            tensors[f"transformer.resblocks.{layer}.attn.in_proj_{own}"] = torch.cat(parts)
        elif name.startswith("encoder.layers."):
            _, _, layer, rest = name.split(".", 3)
            inner, _, own = rest.rpartition(".")
            tensors[f"transformer.resblocks.{layer}.{_OPEN_CLIP_LAYER[inner]}.{own}"] = value
    return tensors


def _from_open_clip(name: str, value: Tensor) -> dict[str, Tensor]:
    """The parameters of a text encoder that one of OpenCLIP's holds; none if it has no counterpart."""
    ends = {original: own for own, original in _OPEN_CLIP_ENDS.items()}
    inners = {original: own for own, original in _OPEN_CLIP_LAYER.items()}
    block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)", name)
    if name in ends:
        return {ends[name]: value}
    if name == "text_projection":
        return {"text_projection.weight": value.transpose(0, -1)}
    if block and block[2] == "attn.in_proj":
        # Pieces of a damaged one have shapes that do not fit.
        pieces = zip("qkv", value.reshape(-1, *value.shape[1:]).tensor_split(3), strict=True)
        return {f"encoder.layers.{block[1]}.self_attn.{which}_proj.{block[3]}": piece for which, piece in pieces}
    if block and block[2] in inners:
        return {f"encoder.layers.{block[1]}.{inners[block[2]]}.{block[3]}": value}
    return {}
