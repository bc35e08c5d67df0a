"""A Stable-Diffusion-shaped model: a thin object over the parts of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.memory import BatchSizes
from erasebench.models.checkpointing import GradientCheckpointing
from erasebench.models.conditioning import Conditioning
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance, Guidance
from erasebench.models.guided import GuidedPrediction


class DiffusionModel:
    """Text encoder, U-Net and VAE with the noise schedule that they were trained for.

    Sizes are read from the parts.  Weights stay in the precision that they were given in; ``dtype`` is what forward
    passes compute in.

    Attributes:
        alphas_cumprod: float32 ``[T]``: the share of signal in the variance at each of the T training timesteps.
        guidance: how noise predictions are combined.
        batch_sizes: how many rows go through the networks at a time; they change speed and memory only.
        checkpointing: of passes of the U-Net with gradients; it does so as well.

    Args:
        pipeline: a diffusers ``StableDiffusionPipeline``, or anything with its parts.
        domain: what it draws, the name of one of :data:`~erasebench.domains.DOMAINS`; decides prompts and judges.
        device: where to run.
        dtype: ``torch.float32``, or ``torch.bfloat16`` for mixed precision.

    Raises:
        EraseBenchError: the U-Net has no cross-attention, or the prediction is neither epsilon nor v.
    """

    def __init__(
        self,
        pipeline: Any,
        domain: str = "photo",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # Here, because diffusers takes seconds to import and a run whose results are there needs no model.
        from diffusers import DDIMScheduler

        self.domain, self.device, self.dtype = domain, torch.device(device), dtype
        self.tokenizer = pipeline.tokenizer
        self.text_encoder: Any = pipeline.text_encoder.to(self.device).eval().requires_grad_(False)
        self.unet: Any = pipeline.unet.to(self.device).eval().requires_grad_(False)
        self.vae: Any = pipeline.vae.to(self.device).eval().requires_grad_(False)
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)
        self.alphas_cumprod: Tensor = DDIMScheduler.from_config(pipeline.scheduler.config).alphas_cumprod.to(
            self.device
        )
        self.guidance: Guidance = ClassifierFreeGuidance()
        self.batch_sizes, self.checkpointing = BatchSizes(), GradientCheckpointing()
        if not any(".attn2." in name for name, _ in self.unet.named_parameters()):
            raise EraseBenchError("the U-Net has no cross-attention (no parameter named attn2)")
        self.prediction_type = str(self.scheduler_config.get("prediction_type", "epsilon"))
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise EraseBenchError(f"prediction type '{self.prediction_type}'; known: epsilon, v_prediction")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture of the model's own size."""
        size = int(self.unet.config.sample_size)
        return int(self.unet.config.in_channels), size, size

    @property
    def timestep_count(self) -> int:
        """Timesteps of the noise schedule that the model was trained with."""
        return len(self.alphas_cumprod)

    @property
    def scale_factor(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Token ids, int64 ``[n, length]``, padded and truncated to the text encoder's own length."""
        encoded = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        ids: Tensor = encoded.input_ids.to(self.device)
        return ids

    @property
    def token_embeddings(self) -> Tensor:
        """The text encoder's table of token embeddings, ``[vocabulary, width]``."""
        table: Tensor = self.text_encoder.get_input_embeddings().weight
        return table

    def embed(self, texts: Sequence[str]) -> Conditioning:
        """Embed prompts; each distinct one is embedded once.

        Gradients flow where the caller and the parameters ask for them.
        """
        if not texts:
            width = self.token_embeddings.shape[1]
            return Conditioning(self.token_embeddings.new_zeros(0, self.tokenizer.model_max_length, width))
        distinct = list(dict.fromkeys(texts))
        rows = {text: row for row, text in enumerate(distinct)}
        return self.embed_ids(self.token_ids(distinct))[[rows[text] for text in texts]]

    def embed_ids(self, ids: Tensor) -> Conditioning:
        """Embed prompts that are given as token ids, int64 ``[n, length]``, in chunks of 64."""
        with self.autocast():
            chunks = [full_precision(self.text_encoder(ids[k : k + 64])[0]) for k in range(0, len(ids), 64)]
        return Conditioning(torch.cat(chunks))

    def embed_vectors(self, ids: Tensor, vectors: Tensor, slots: Tensor | Sequence[int]) -> Conditioning:
        """Embed prompts in which vectors take the place of some tokens' embeddings, before positions are added.

        Gradients reach the vectors, and of the prompts' own tokens those that the parameters ask for.

        Args:
            ids: int64 ``[n, length]``; what stands in the slots does not matter, unless it is the end of text.
            vectors: ``[n, k, width]``, or ``[k, width]`` for the same in all prompts.
            slots: where they go: ``k`` positions in 0..length-1, or ``[n, k]`` of each prompt's own; each once.

        Raises:
            ValueError: shapes do not fit.
        """
        places = torch.as_tensor(slots, device=ids.device).expand(len(ids), -1)
        if vectors.shape[-2:] != (places.shape[1], self.token_embeddings.shape[1]):
            raise ValueError(f"vectors of shape {list(vectors.shape)} for {places.shape[1]} slots")

        def replace(layer: Any, inputs: Any, output: Tensor) -> Tensor:
            source = vectors.to(output).expand(len(output), -1, -1)
            return output.scatter(1, places[..., None].expand_as(source), source)

        handle = self.text_encoder.get_input_embeddings().register_forward_hook(replace)
        try:
            with self.autocast():
                return Conditioning(full_precision(self.text_encoder(ids)[0]))
        finally:
            handle.remove()

    def signal(self, timesteps: Tensor) -> Tensor:
        """The share of signal in the variance of latents at timesteps ``[n]``: ``[n, 1, 1, 1]``, in 0..1."""
        return self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Make clean latents ``[n, c, h, w]`` as noisy as they are at timesteps ``[n]``."""
        signal = self.signal(timesteps)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def predict(self, latents: Tensor, timesteps: Tensor | int | float, conditioning: Conditioning) -> Tensor:
        """The U-Net's own prediction (noise or v), float32 ``[n, c, h, w]``."""
        text = conditioning.embeddings
        if torch.is_grad_enabled():
            self.checkpointing.apply(self.unet, latents, text)
        with self.autocast():
            predicted: Tensor = self.unet(latents, timesteps, encoder_hidden_states=text, return_dict=False)[0]
        return full_precision(predicted)

    def predict_noise(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predicted noise, float32 ``[n, c, h, w]``, also where the model predicts v.

        Args:
            latents: noisy latents ``[n, c, h, w]``.
            timesteps: int64 ``[n]``, in 0..T-1.
            conditioning: of ``n`` prompts.
        """
        predicted = self.predict(latents, timesteps, conditioning)
        return self.as_noise(predicted, latents, timesteps)

    def predict_guided(
        self,
        latents: Tensor,
        timesteps: Tensor | int | float,
        conditioning: Conditioning,
        guidance_scale: float,
        step: int = 0,
    ) -> Tensor:
        """One prediction (noise or v) through the guidance rule in force, without momentum from earlier steps.

        It has gradients to latents and conditioning.  Several steps of one run take a :class:`GuidedPrediction`.

        Args:
            latents: noisy latents ``[n, c, h, w]``.
            timesteps: one for all, or ``[n]``.
            conditioning: of ``n`` prompts; the rule's own texts are embedded here.
            guidance_scale: of the rule.
            step: of the sampling run, from 0; rules may do nothing in the first ones.
        """
        return GuidedPrediction(self, conditioning, guidance_scale)(latents, timesteps, step)

    def as_noise(self, predicted: Tensor, latents: Tensor, timesteps: Tensor) -> Tensor:
        """The noise in latents ``[n, c, h, w]`` that a prediction (noise or v) of theirs stands for."""
        if self.prediction_type == "epsilon":
            return predicted
        signal = self.signal(timesteps)
        # v = sqrt(a) eps - sqrt(1 - a) x_0 (Salimans and Ho 2022), and x = sqrt(a) x_0 + sqrt(1 - a) eps.
        return signal.sqrt() * predicted + (1 - signal).sqrt() * latents

    @torch.no_grad()
    def encode_images(self, images: NDArray[np.uint8]) -> Tensor:
        """Scaled latents ``[n, c, h, w]`` of images, uint8 ``[n, height, width, 3]``: the mode of their posterior."""

        def encode(part: slice) -> Tensor:
            pixels = torch.from_numpy(images[part]).to(self.device).permute(0, 3, 1, 2)
            with self.autocast():
                posterior = self.vae.encode(pixels.to(self.vae.dtype) / 127.5 - 1).latent_dist
            return full_precision(posterior.mode())

        latents = torch.cat([*self.batch_sizes.decoded.batches(len(images), encode)])
        return latents * float(self.vae.config.scaling_factor)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Pictures, uint8 ``[n, height, width, 3]``, of scaled latents ``[n, c, h, w]``."""
        unscaled = latents / self.vae.config.scaling_factor

        def draw(part: slice) -> NDArray[np.uint8]:
            with self.autocast():
                pixels = self.vae.decode(unscaled[part], return_dict=False)[0].float()
            scaled = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            pictures: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).cpu().numpy()
            return pictures

        return np.concatenate([*self.batch_sizes.decoded.batches(len(latents), draw)])

    def autocast(self) -> Any:
        """Mixed precision where ``dtype`` asks for it."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that an erasure may change: ``"unet.<name>"`` and ``"text_encoder.<name>"``."""
        parts: dict[str, nn.Module] = {"unet": self.unet, "text_encoder": self.text_encoder}
        return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}

    @torch.no_grad()
    def apply(self, erasure: Erasure) -> None:
        """Apply an erasure in place, for good.

        Raises:
            EraseBenchError: the erasure names a parameter that the model lacks, or one of another shape.
        """
        parameters = self.parameters()
        check_fits(erasure, parameters)
        for name, value in erasure.weights.items():
            parameters[name].copy_(value)
        for name, (up, down) in erasure.low_rank.items():
            change = up.to(self.device).float() @ down.to(self.device).float()
            parameters[name].add_(change.view_as(parameters[name]))
        self.guidance = erasure.guidance or self.guidance

    @contextmanager
    def erased(self, erasure: Erasure) -> Iterator[DiffusionModel]:
        """Apply an erasure in place, and restore the model, bit for bit, however the block ends.

        Raises:
            EraseBenchError: the erasure names a parameter that the model lacks, or one of another shape.
        """
        parameters = self.parameters()
        check_fits(erasure, parameters)  # before anything is copied
        before = {name: parameters[name].detach().clone() for name in (*erasure.weights, *erasure.low_rank)}
        guidance = self.guidance
        try:
            self.apply(erasure)
            yield self
        finally:
            self.guidance = guidance
            with torch.no_grad():
                for name, value in before.items():
                    parameters[name].copy_(value)


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is so precise already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_fits(erasure: Erasure, parameters: Mapping[str, Tensor]) -> None:
    """Raise :class:`EraseBenchError` unless every tensor of an erasure has a parameter of its shape."""
    changes = [(name, list(tensor.shape), False) for name, tensor in erasure.weights.items()]
    for name, (up, down) in erasure.low_rank.items():
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != len(down):
            raise EraseBenchError(
                f"the erasure's factors of {name} have shapes {list(up.shape)} and {list(down.shape)}: no product"
            )
        changes.append((name, [len(up), down.shape[1]], True))
    for name, shape, flat in changes:
        if name not in parameters:
            raise EraseBenchError(f"the erasure changes {name}, which the model does not have")
        own = parameters[name].shape
        if shape != ([own[0], own[1:].numel()] if flat else list(own)):
            raise EraseBenchError(f"the erasure's {name} has shape {shape}, the model's {list(own)}")
