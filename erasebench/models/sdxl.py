"""Stable Diffusion XL (Podell et al., ICLR 2024): two text encoders, a pooled embedding, and the size as a condition.

Each token is embedded by the last hidden layer but one of both text encoders, side by side; the prompt as a whole by
the projected output of the second.  A size is given as the original and the target size, without cropping: that of the
image, as the pipeline of diffusers does by default.

The two tokenizers share a vocabulary, but not the token that they pad with.  In the second it is "!", which it takes
for padding in a text as well: texts are therefore read by both.  Prompts that are given as token ids are those of the
first.

Embeddings of single tokens, in front of the text encoders, are those of both tables side by side: a vector has the
width of both, and a gradient adds up over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning, padded_ids
from erasebench.models.diffusion import DiffusionModel, full_precision
from erasebench.models.families import STABLE_DIFFUSION_XL, Family

TIME_IDS = 6
"""Numbers that condition on the size: original height and width, top and left of the crop, target height and width."""


class StableDiffusionXL(DiffusionModel):
    """A model of the shape of Stable Diffusion XL's base model.

    Args:
        pipeline: a diffusers ``StableDiffusionXLPipeline``, or anything with its parts.
        domain: as of :class:`~erasebench.models.diffusion.DiffusionModel`; ``device`` and ``dtype`` likewise.
        device: where to run.
        dtype: ``torch.float32``, or ``torch.bfloat16`` for mixed precision.

    Raises:
        EraseBenchError: the two tokenizers have different vocabularies, or the U-Net takes other conditions, as the
            refiner's.
    """

    family: ClassVar[Family] = STABLE_DIFFUSION_XL

    def __init__(
        self,
        pipeline: Any,
        domain: str = "photo",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(pipeline, domain, device, dtype)
        self.text_encoder_2: Any = pipeline.text_encoder_2.to(self.device).eval().requires_grad_(False)
        self.tokenizer_2 = pipeline.tokenizer_2
        self._zero_blank = bool(pipeline.config["force_zeros_for_empty_prompt"])
        if self.tokenizer.get_vocab() != self.tokenizer_2.get_vocab():
            raise EraseBenchError("the pipeline's two tokenizers have different vocabularies")
        config = self.unet.config
        width = self.text_encoder_2.config.projection_dim + TIME_IDS * (config.addition_time_embed_dim or 0)
        if config.addition_embed_type != "text_time" or config.projection_class_embeddings_input_dim != width:
            raise EraseBenchError(
                "the U-Net is not conditioned on a pooled embedding and a size, as that of Stable Diffusion XL's base "
                "model is"
            )

    @property
    def pipeline_options(self) -> dict[str, Any]:
        """The options of a stock pipeline of the family, besides its parts."""
        return {"force_zeros_for_empty_prompt": self._zero_blank}

    @property
    def token_embeddings(self) -> Tensor:
        """The tables of both text encoders side by side, ``[vocabulary, width]``: a copy."""
        return torch.cat(self._tables(), dim=1)

    def token_vectors(self, ids: Tensor) -> Tensor:
        """Look up the embeddings of whole prompts' token ids, int64 ``[n, length]``: ``[n, length, width]``."""
        first, second = self._tables()
        return torch.cat([first[ids], second[self.second_ids(ids)]], dim=-1)

    def _tables(self) -> list[Tensor]:
        return [getattr(self, name).get_input_embeddings().weight for name in self.family.text_encoders]

    def second_ids(self, ids: Tensor) -> Tensor:
        """The ids that the second text encoder reads for the first's, int64 ``[n, length]``: with its own padding."""
        padding = (ids == self.tokenizer.pad_token_id).flip(1).cumprod(1).flip(1).bool()
        if self.tokenizer.pad_token_id == self.tokenizer.eos_token_id:
            # The first of them ends the text.
            padding = padding & padding.roll(1, dims=1)
            padding[:, 0] = False
        return ids.masked_fill(padding, self.tokenizer_2.pad_token_id)

    def embed_negative(self, texts: Sequence[str]) -> Conditioning:
        """Embed what a rule of guidance predicts noise for besides the prompt; an empty text is no condition at all.

        That is zeros where the pipeline says so (``force_zeros_for_empty_prompt``), as diffusers has it when it is
        given no negative prompt.
        """
        embedded = self.embed(texts)
        if not self._zero_blank:
            return embedded
        assert embedded.pooled is not None  # encode() makes one
        mask = torch.tensor([bool(text) for text in texts], device=self.device)
        return Conditioning(embedded.embeddings * mask[:, None, None], embedded.pooled * mask[:, None])

    def embed_each(self, texts: Sequence[str]) -> Conditioning:
        """Embed prompts one by one, however many are the same."""
        first, second = self.token_ids(texts), padded_ids(self.tokenizer_2, texts).to(self.device)
        chunks = zip(torch.split(first, 64), torch.split(second, 64), strict=True)
        return Conditioning.cat([self.encode(*ids) for ids in chunks])

    def encode(self, ids: Tensor, second_ids: Tensor | None = None) -> Conditioning:
        """Send token ids, int64 ``[n, length]``, through both text encoders, all at once.

        Args:
            ids: of the first tokenizer.
            second_ids: of the second; derived from the first's if omitted.
        """
        with self.autocast():
            first = self.text_encoder(ids, output_hidden_states=True)
            second_ids = self.second_ids(ids) if second_ids is None else second_ids
            second = self.text_encoder_2(second_ids, output_hidden_states=True)
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return Conditioning(full_precision(tokens), full_precision(second.text_embeds))

    def conditions(self, latents: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Embeddings, pooled embeddings and the size of images of latents ``[n, c, h, w]``.

        Raises:
            ValueError: the conditioning has no pooled embeddings.
        """
        if conditioning.pooled is None:
            raise ValueError("Stable Diffusion XL needs a pooled embedding of each prompt")
        height, width = (self.scale_factor * side for side in latents.shape[-2:])
        time_ids = torch.tensor([[height, width, 0, 0, height, width]], device=latents.device, dtype=latents.dtype)
        added = {"text_embeds": conditioning.pooled, "time_ids": time_ids.repeat(len(conditioning), 1)}
        return {**super().conditions(latents, conditioning), "added_cond_kwargs": added}
