"""A Stable-Diffusion-shaped model: a thin object over the parts of a diffusers pipeline.

Other families of models are subclasses, one a file: they override what they compute in another way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from erasebench.errors import EraseBenchError
from erasebench.memory import BatchSizes
from erasebench.models.checkpointing import GradientCheckpointing
from erasebench.models.conditioning import Conditioning, padded_ids
from erasebench.models.erasure import Erasure, check_fits
from erasebench.models.families import STABLE_DIFFUSION, Family
from erasebench.models.guidance import ClassifierFreeGuidance, Guidance
from erasebench.models.guided import GuidedPrediction
from erasebench.models.recordings import Build, Recorder
from erasebench.models.sampling_unet import SamplingUnet
from erasebench.models.schedulers import build_scheduler
from erasebench.models.shared_passes import shared_passes

ENCODED = 4
"""The number of sets of images whose latents are kept."""


class DiffusionModel:
    """Text encoder, U-Net and VAE with the noise schedule that they were trained for.

    Sizes are read from the parts.  Weights stay in the precision that they were given in; ``dtype`` is what forward
    passes compute in.

    Attributes:
        family: the parts of its pipelines.
        alphas_cumprod: float32 ``[T]``: the share of signal in the variance at each of the T training timesteps.
        guidance: how noise predictions are combined.
        accelerated: whether, on a GPU, images are sampled with a copy of the U-Net and passes of few rows are recorded,
            which saves most of their time and changes them by rounding.
        batch_sizes: how many rows go through the networks at a time; they change speed and memory only.
        checkpointing: of passes of the U-Net with gradients; it does so as well.
        recorder: of passes outside of sampling.

    Args:
        pipeline: a diffusers ``StableDiffusionPipeline``, or anything with its parts.
        domain: what it draws, the name of one of :data:`~erasebench.domains.DOMAINS`; decides prompts and judges.
        device: where to run.
        dtype: ``torch.float32``, or ``torch.bfloat16`` for mixed precision.

    Raises:
        EraseBenchError: the U-Net has no cross-attention, or the prediction is neither epsilon nor v.
    """

    family: ClassVar[Family] = STABLE_DIFFUSION

    _backend: str | None = None
    _sampling_unet: SamplingUnet | None = None

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
        self.accelerated, self.recorder = True, Recorder(self.unet)
        self._layers = [name for name, _ in self.unet.named_parameters()]
        if not any(".attn2." in name for name in self._layers):
            raise EraseBenchError("the U-Net has no cross-attention (no parameter named attn2)")
        self.prediction_type = str(self.scheduler_config.get("prediction_type", "epsilon"))
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise EraseBenchError(f"prediction type '{self.prediction_type}'; known: epsilon, v_prediction")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image of the model's own size."""
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

    @property
    def size_multiple(self) -> int:
        """The number that the sides of an image have to be a multiple of, in pixels."""
        return self.scale_factor * int(2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def pipeline_options(self) -> dict[str, Any]:
        """The options of a stock pipeline of the family, besides its parts."""
        return {"requires_safety_checker": False}

    def scheduler(self, sampler: str) -> Any:
        """A diffusers scheduler of the model's noise schedule, by a sampler's name."""
        return build_scheduler(self.scheduler_config, sampler)

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Token ids, int64 ``[n, length]``, padded and truncated to the text encoder's own length."""
        return padded_ids(self.tokenizer, texts).to(self.device)

    @property
    def token_embeddings(self) -> Tensor:
        """The text encoder's table of token embeddings, ``[vocabulary, width]``."""
        table: Tensor = self.text_encoder.get_input_embeddings().weight
        return table

    def token_vectors(self, ids: Tensor) -> Tensor:
        """Look up the embeddings of whole prompts' token ids, int64 ``[n, length]``: ``[n, length, width]``."""
        return self.token_embeddings[ids]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        """Embed prompts; each distinct one is embedded once.

        Gradients flow where the caller and the parameters ask for them.
        """
        distinct = list(dict.fromkeys(texts)) or [""]
        rows = {text: row for row, text in enumerate(distinct)}
        return self.embed_each(distinct)[[rows[text] for text in texts]]

    def embed_each(self, texts: Sequence[str]) -> Conditioning:
        """Embed prompts one by one, however many are the same."""
        return self.embed_ids(self.token_ids(texts))

    def embed_negative(self, texts: Sequence[str]) -> Conditioning:
        """Embed what a rule of guidance predicts noise for besides the prompt; an empty text is no condition at all."""
        return self.embed(texts)

    def embed_ids(self, ids: Tensor) -> Conditioning:
        """Embed prompts that are given as token ids, int64 ``[n, length]``, in chunks of 64."""
        return Conditioning.cat([self.encode(ids[k : k + 64]) for k in range(0, len(ids), 64)])

    def encode(self, ids: Tensor) -> Conditioning:
        """Send token ids, int64 ``[n, length]``, through the text encoder, all at once."""
        with self.autocast():
            return Conditioning(full_precision(self.text_encoder(ids)[0]))

    def embed_vectors(self, ids: Tensor, vectors: Tensor, slots: Tensor | Sequence[int]) -> Conditioning:
        """Embed prompts in which vectors take the place of some tokens' embeddings, before positions are added.

        Gradients reach the vectors, and of the prompts' own tokens those that the parameters ask for.

        Args:
            ids: int64 ``[n, length]``; what stands in the slots does not matter, unless it is the end of text
                or padding.
            vectors: ``[n, k, width]``, or ``[k, width]`` for the same in all prompts.
            slots: where they go: ``k`` positions in 0..length-1, or ``[n, k]`` of each prompt's own; each once.

        Raises:
            ValueError: shapes do not fit.
        """
        places = torch.as_tensor(slots, device=ids.device).expand(len(ids), -1)
        layers = [getattr(self, name).get_input_embeddings() for name in self.family.text_encoders]
        widths = [layer.weight.shape[1] for layer in layers]
        if vectors.shape[-2:] != (places.shape[1], sum(widths)):
            raise ValueError(f"vectors of shape {list(vectors.shape)} for {places.shape[1]} slots")

        def replace(part: Tensor, layer: Any, inputs: Any, output: Tensor) -> Tensor:
            source = part.to(output).expand(len(output), -1, -1)
            return output.scatter(1, places[..., None].expand_as(source), source)

        with ExitStack() as stack:
            for layer, part in zip(layers, torch.split(vectors, widths, dim=-1), strict=True):
                stack.callback(layer.register_forward_hook(partial(replace, part)).remove)
            return self.encode(ids)

    def signal(self, timesteps: Tensor) -> Tensor:
        """The share of signal in the variance of latents at timesteps ``[n]``: ``[n, 1, 1, 1]``, in 0..1."""
        return self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Make clean latents ``[n, c, h, w]`` as noisy as they are at timesteps ``[n]``."""
        signal = self.signal(timesteps)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def predict(self, latents: Tensor, timesteps: Tensor | int | float, conditioning: Conditioning) -> Tensor:
        """The U-Net's own prediction (noise or v), float32 ``[n, c, h, w]``."""
        conditions = self.conditions(latents, conditioning)
        self.checkpointing.apply(self.unet, latents, conditioning.embeddings)
        predicted = self._recorded(latents, timesteps, conditions)
        if predicted is None:
            with self.autocast():
                predicted = self.unet(latents, timesteps, **conditions, return_dict=False)[0]
        return full_precision(predicted)

    def _recorded(
        self, latents: Tensor, timesteps: Tensor | int | float, conditions: Mapping[str, Any]
    ) -> Tensor | None:
        if not (latents.is_cuda and self.accelerated and isinstance(self.unet, nn.Module)):
            return None
        return self.recorder.predict(self.unet, latents, timesteps, conditions, self.dtype)

    def conditions(self, latents: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """The inputs of the U-Net besides latents ``[n, c, h, w]`` and timesteps, by its own names."""
        return {"encoder_hidden_states": conditioning.embeddings}

    def compile(self, backend: str = "inductor") -> None:
        """Compile the passes of sampling, one graph for each shape, by a backend of ``torch.compile``."""
        self._backend, self._sampling_unet = backend, None

    @property
    def is_compiled(self) -> bool:
        """True if batches of one size are to be preferred."""
        return self._backend is not None

    @property
    def has_copy(self) -> bool:
        """True if the copy of the U-Net that sampling is by has been made."""
        return self._sampling_unet is not None

    @contextmanager
    def sampling(self) -> Iterator[bool]:
        """Make predictions cheaper until the block ends, as sampling needs them; they differ by rounding.

        All rows have one timestep.  On a GPU, and where passes are compiled, predictions are by a
        :class:`~erasebench.models.sampling_unet.SamplingUnet`, without gradients; for a U-Net with hooks, and
        elsewhere, see :func:`~erasebench.models.shared_passes.shared_passes`.

        Yields:
            Whether latents ``[n, c, h, w]`` may come with conditioning of ``k n`` prompts.
        """
        unet, copied = self.unet, self._copied_unet()
        if copied is None:
            with shared_passes(unet):
                yield True
            return
        self.unet = copied
        try:
            yield True
        finally:
            self.unet = unet

    def _copied_unet(self) -> SamplingUnet | None:
        on_gpu = self.device.type == "cuda" and self.accelerated
        if not (self.is_compiled or on_gpu) or torch.is_grad_enabled():
            return None
        if self._sampling_unet is None:
            if [name for name, _ in self.unet.named_parameters()] != self._layers or Build.of(self.unet).hooked:
                return None
            self._sampling_unet = SamplingUnet(self.unet, self.dtype, self._backend)
        return self._sampling_unet if self._sampling_unet.refresh(self.unet) else None

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

    def encode_images(self, images: NDArray[np.uint8]) -> Tensor:
        """Scaled latents ``[n, c, h, w]`` of images, uint8 ``[n, height, width, 3]``: the mode of their posterior.

        The last sets of images are not encoded again: attacks learn from the same ones against every erased model, and
        no erasure changes a VAE.
        """
        key = images.shape, hashlib.sha256(np.ascontiguousarray(images).data).digest()
        known: dict[object, Tensor] = vars(self).setdefault("_encoded", {})  # families have initializers of their own
        latents = known.pop(key, None)
        if latents is None:
            latents = self._encode(images)
        known[key] = latents
        if len(known) > ENCODED:
            del known[next(iter(known))]
        return latents * float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def _encode(self, images: NDArray[np.uint8]) -> Tensor:
        def encode(part: slice) -> Tensor:
            pixels = torch.from_numpy(images[part]).to(self.device).permute(0, 3, 1, 2)
            with self.autocast():
                posterior = self.vae.encode(pixels.to(self.vae.dtype) / 127.5 - 1).latent_dist
            return full_precision(posterior.mode())

        return torch.cat([*self.batch_sizes.decoded.batches(len(images), encode)])

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Images, uint8 ``[n, height, width, 3]``, of scaled latents ``[n, c, h, w]``."""
        unscaled = latents / self.vae.config.scaling_factor

        def draw(part: slice) -> NDArray[np.uint8]:
            with self.autocast():
                pixels = self.vae.decode(unscaled[part], return_dict=False)[0].float()
            scaled = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            images: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).cpu().numpy()
            return images

        return np.concatenate([*self.batch_sizes.decoded.batches(len(latents), draw)])

    def autocast(self) -> Any:
        """Mixed precision where ``dtype`` asks for it."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that an erasure may change, by ``"unet.<name>"`` and ``"<text encoder>.<name>"``."""
        parts: dict[str, nn.Module] = {part: getattr(self, part) for part in ("unet", *self.family.text_encoders)}
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
