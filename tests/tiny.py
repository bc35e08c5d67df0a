"""Stable-Diffusion-shaped pipelines of random weights, small enough to be built for every test."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from erasebench.concepts import Concept
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.sdxl import TIME_IDS, StableDiffusionXL
from erasebench.plugins import EraseContext, Judge

Layout = Literal["sd1", "sd2", "sdxl"]
LENGTH = 77
WORDS = ("church", "art", "dog")
"""Words of one token; any other is spelt out letter by letter."""


def tiny_tokenizer(layout: Layout = "sd1") -> CLIPTokenizer:
    """CLIP's byte-pair encoding of a few words; pads with EOS (SD 1.x, XL) or with "!", whose id is 0 (SD 2.x)."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges[parts[0], parts[1]] = None
            parts[:2] = [parts[0] + parts[1]]
            tokens[parts[0]] = None
    vocabulary = [*tokens, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=list(merges),
        model_max_length=LENGTH,
        pad_token="!" if layout == "sd2" else "<|endoftext|>",
    )


def tiny_text_config(tokenizer: CLIPTokenizer, width: int, activation: str, layers: int = 2) -> CLIPTextConfig:
    """The shape of a text encoder that reads a tokenizer's ids."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class Mould:
    """Makes copies of something that holds tensors, in a sixth of the time that building a model's modules takes."""

    def __init__(self, original: Any) -> None:
        stream, self._tensors = io.BytesIO(), dict[int, Tensor]()
        _Pickler(stream, self._tensors).dump(original)
        self._rest = stream.getvalue()

    def cast(self) -> Any:
        """A copy that shares nothing with the original."""
        return _Unpickler(io.BytesIO(self._rest), copy.deepcopy(self._tensors)).load()


class _Pickler(pickle.Pickler):
    """Leaves tensors aside, since it would take longer over them than over all the rest."""

    def __init__(self, stream: io.BytesIO, tensors: dict[int, Tensor]) -> None:
        super().__init__(stream)
        self._tensors = tensors

    def persistent_id(self, part: Any) -> int | None:
        if not isinstance(part, Tensor):
            return None
        self._tensors[id(part)] = part
        return id(part)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, tensors: dict[int, Tensor]) -> None:
        super().__init__(stream)
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Tensor:
        return self._tensors[number]


@cache
def _pipeline_mould(layout: Layout, seed: int) -> Mould:
    return Mould(_build_pipeline(layout, seed))


@cache
def _model_mould(layout: Layout, seed: int) -> Mould:
    return Mould(as_model(tiny_pipeline(layout, seed)))


def _cast(mould: Mould, layout: Layout) -> Any:
    """A copy with new tokenizers, since one that was pickled does not know any more how words end."""
    copied = mould.cast()
    copied.tokenizer = tiny_tokenizer(layout)
    if layout == "sdxl":
        copied.tokenizer_2 = tiny_tokenizer("sd2")
    return copied


def tiny_pipeline(layout: Layout = "sd1", seed: int = 0) -> Any:
    """The parts of a pipeline, in the layout of Stable Diffusion 1.x, 2.x or XL; pictures have 16 pixels a side.

    SD 1.x predicts noise, projects with convolutions and has a fixed number of heads; SD 2.x predicts v, projects with
    linear layers and has a number of heads for each level.  SD XL does as SD 2.x, but predicts noise; it has a second
    text encoder.
    """
    return _cast(_pipeline_mould(layout, seed), layout)


def _build_pipeline(layout: Layout, seed: int) -> Any:
    sd2, sdxl = layout == "sd2", layout == "sdxl"
    width = 24 if sd2 else 16
    tokenizer = tiny_tokenizer(layout)
    added: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel(tiny_text_config(tokenizer, width, "gelu" if sd2 else "quick_gelu"))
        if sdxl:
            second = tiny_tokenizer("sd2")
            config = tiny_text_config(second, 2 * width, "gelu", layers=3)
            added = {"tokenizer_2": second, "text_encoder_2": CLIPTextModelWithProjection(config)}
        conditions: dict[str, Any] = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 2 * width + 4 * TIME_IDS,
        }
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=3 * width if sdxl else width,
            attention_head_dim=2 if layout == "sd1" else [2, 4],
            use_linear_projection=layout != "sd1",
            **(conditions if sdxl else {}),
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=16,
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction" if sd2 else "epsilon",
    )
    if sdxl:
        added["config"] = {"force_zeros_for_empty_prompt": True}
    return SimpleNamespace(tokenizer=tokenizer, text_encoder=text, unet=unet, vae=vae, scheduler=scheduler, **added)


def as_model(parts: Any) -> DiffusionModel:
    """The parts of a pipeline as a model under test."""
    return StableDiffusionXL(parts) if hasattr(parts, "text_encoder_2") else DiffusionModel(parts)


def tiny_model(layout: Layout = "sd1", seed: int = 0) -> DiffusionModel:
    """The same as a model under test."""
    model: DiffusionModel = _cast(_model_mould(layout, seed), layout)
    return model


def exact_model(layout: Layout = "sd1") -> DiffusionModel:
    """The same in float64, for finite differences."""
    parts = tiny_pipeline(layout)
    for part in vars(parts).values():
        if isinstance(part, torch.nn.Module):
            part.double()
    return as_model(parts)


def erase_context(seed: int = 0, steps: list[Mapping[str, float]] | None = None) -> EraseContext:
    """What a run lends to a method: no judges, no folder; progress is appended to ``steps``."""

    def no_judge(name: str) -> Judge:
        raise AssertionError(f"a judge was asked for: {name}")

    def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
        if steps is not None:
            steps.append({"done": done, "total": total, **figures})

    return EraseContext(seed, Path("/nonexistent"), progress, no_judge)


def concept(phrase: str, kind: str = "object", **fields: Any) -> Concept:
    """A concept as methods see it."""
    return Concept(name=phrase.replace(" ", "-"), kind=kind, phrase=phrase, **fields)


def state(model: DiffusionModel) -> dict[str, Tensor]:
    """A copy of every parameter of a model."""
    return {name: parameter.detach().clone() for name, parameter in model.parameters().items()}


def check_change(model: DiffusionModel, before: Mapping[str, Tensor], erasure: Erasure, chosen: set[str]) -> None:
    """An erasure left its model as it was, holds the chosen parameters, changes nearly all of them and no other.

    The biases of keys and the like have no gradient at times.
    """
    assert not differing(before, state(model))
    assert not any(parameter.requires_grad for parameter in model.parameters().values())
    assert set(erasure.weights) == chosen
    with model.erased(erasure):
        changed = differing(before, state(model))
        assert changed <= chosen
        assert len(changed) >= 0.8 * len(chosen)
    assert not differing(before, state(model))


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """The names of the tensors that are not bit for bit the same."""
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}
