"""Families of models: how a diffusers pipeline is recognised, and what it is made of.  Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Models of one shape.

    Attributes:
        name: by which :data:`FAMILIES` has it.
        title: for readers.
        pipeline: the class of diffusers.
        model: the class here, as ``module:class``.
        networks: the parts that have weights.
        tokenizers: the parts that read texts.
        unused: parts of the pipeline that are never loaded.
        pooled: prompts also have a pooled embedding, without which the model cannot be conditioned.
    """

    name: str
    title: str
    pipeline: str
    model: str
    networks: tuple[str, ...]
    tokenizers: tuple[str, ...]
    unused: tuple[str, ...]
    pooled: bool = False

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The networks that embed prompts."""
        return tuple(name for name in self.networks if name.startswith("text_encoder"))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that a pipeline's folder has to hold."""
        return (*self.networks, *self.tokenizers, "scheduler")


STABLE_DIFFUSION = Family(
    name="sd",
    title="Stable Diffusion 1.x or 2.x",
    pipeline="StableDiffusionPipeline",
    model="erasebench.models.diffusion:DiffusionModel",
    networks=("unet", "text_encoder", "vae"),
    tokenizers=("tokenizer",),
    unused=("safety_checker", "feature_extractor", "image_encoder"),
)
STABLE_DIFFUSION_XL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    model="erasebench.models.sdxl:StableDiffusionXL",
    networks=("unet", "text_encoder", "text_encoder_2", "vae"),
    tokenizers=("tokenizer", "tokenizer_2"),
    unused=("feature_extractor", "image_encoder"),
    pooled=True,
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in (STABLE_DIFFUSION, STABLE_DIFFUSION_XL)}
"""Every family by name."""
