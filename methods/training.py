"""What the training loops of several methods share: a trace of their steps, positions of words, adapters, maps of
attention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from erasebench.method import EraseContext, check_loss
from erasebench.models.diffusion import DiffusionModel
from erasebench.sampling import Sampler, draw_latents

if TYPE_CHECKING:
    from erasebench.concepts import Concept


class Trace:
    """The figures of each training step, kept for curves and told to whoever watches.

    Args:
        context: whom to tell.
        total: training steps in all.
        done: the rows of the steps that were done before, where training is resumed.
    """

    def __init__(self, context: EraseContext, total: int, done: Sequence[Mapping[str, float | str]] = ()) -> None:
        self._context, self._total = context, total
        self.rows: list[Mapping[str, float | str]] = list(done)

    def step(self, **figures: float | str) -> None:
        """Note a step.

        Raises:
            FloatingPointError: ``loss`` is NaN or infinite.
        """
        step = len(self.rows) + 1
        check_loss(float(figures.get("loss", 0.0)), step)
        self.rows.append({"step": float(step), **figures})
        numbers = {name: value for name, value in figures.items() if not isinstance(value, str)}
        self._context.progress(step, self._total, numbers)


def token_positions(model: DiffusionModel, prompt: str, phrase: str) -> list[int]:
    """Where a phrase's tokens stand among a prompt's, ascending; position 0 is the start token.

    Every occurrence counts; what truncation cuts off does not.  Empty where the prompt does not have the phrase as
    whole words, or where the phrase is blank.
    """
    ids = model.tokenizer(prompt, truncation=True, max_length=model.tokenizer.model_max_length).input_ids
    # A CLIP token never crosses a word boundary, so that a phrase has the same ids wherever it stands.
    sought = model.tokenizer(phrase, add_special_tokens=False).input_ids
    length = len(sought)
    starts = [k for k in range(len(ids) - length + 1) if ids[k : k + length] == sought]
    return sorted({start + offset for start in starts for offset in range(length)})


def erased_anchor(concepts: Sequence[Concept], mapped: Iterable[tuple[Concept, str]]) -> str | None:
    """Why concepts cannot be mapped to anchors, if one of these is itself to be erased; articles do not count."""
    erased = {_bare(concept.phrase) for concept in concepts}
    for concept, anchor in mapped:
        if _bare(anchor) in erased:
            return f"'{concept.phrase}' would be mapped to '{anchor}', which is to be erased"
    return None


def _bare(words: str) -> str:
    return re.sub(r"^(an?|the)\s+", "", words.strip().casefold())


def noisy(
    model: DiffusionModel, latents: Tensor, rng: torch.Generator, t: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``x_t`` of latents ``[n, c, h, w]``, ``t`` ``[n]``, uniform over all timesteps if omitted, and the noise."""
    if t is None:
        t = torch.randint(len(model.alphas_cumprod), (len(latents),), generator=rng).to(model.device)
    noise = torch.randn(latents.shape, generator=rng).to(model.device)
    alpha = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, t, noise


def training_latents(model: DiffusionModel, prompts: Sequence[str], sampler: Sampler, rng: torch.Generator) -> Tensor:
    """The model's own pictures to train on, with seeds from a generator: latents ``[n, c, h, w]``."""
    seeds: list[int] = torch.randint(2**31, (len(prompts),), generator=rng).tolist()
    return torch.cat(list(draw_latents(model, prompts, seeds, sampler)))


class Adapters:
    """LoRA adapters (Hu et al. 2021) on linear layers, through peft.

    Inside ``with Adapters(...) as adapters:`` the layers have them; afterwards the network is as it was, bit for bit.
    At first they change nothing: ``down`` is random, ``up`` is zero.

    Args:
        network: whose layers.
        layers: their full names, such as ``mid_block.attentions.0.transformer_blocks.0.attn2.to_v``.
        rank: of the change.
        seed: of ``down``.
        gaussian: draw ``down`` from N(0, 1 / rank^2) (peft's "gaussian") instead of Kaiming's uniform distribution.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], rank: int, seed: int, gaussian: bool = False) -> None:
        self._network, self._layers, self._rank = network, list(layers), rank
        self._seed, self._gaussian = seed, gaussian

    def __enter__(self) -> Adapters:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        config = LoraConfig(
            r=self._rank,
            lora_alpha=self._rank,
            target_modules=self._layers,
            init_lora_weights="gaussian" if self._gaussian else True,
        )
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which seeds GPUs as well.
            torch.default_generator.manual_seed(self._seed)
            self._tuner: Any = LoraModel(self._network, config, "default")
        modules = dict(self._network.named_modules())
        self._modules: dict[str, Any] = {name: modules[name] for name in self._layers}
        return self

    def __exit__(self, *_: object) -> None:
        self._tuner.unload()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained: of each layer, ``down`` and ``up``."""
        return [half for down, up in self._halves().values() for half in (down, up)]

    @contextmanager
    def off(self) -> Iterator[None]:
        """The network without the adapters, and without gradients."""
        self._tuner.disable_adapter_layers()
        try:
            with torch.no_grad():
                yield
        finally:
            self._tuner.enable_adapter_layers()

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The change of each layer: its name -> (up ``[out, rank]``, down ``[rank, in]``), copied."""
        return {name: (up.detach().clone(), down.detach().clone()) for name, (down, up) in self._halves().items()}

    def load(self, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take over what :meth:`factors` gave."""
        with torch.no_grad():
            for name, (down, up) in self._halves().items():
                up.copy_(factors[name][0])
                down.copy_(factors[name][1])

    def _halves(self) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
        return {
            name: (module.lora_A["default"].weight, module.lora_B["default"].weight)
            for name, module in self._modules.items()
        }


@contextmanager
def cross_attention_maps(unet: nn.Module) -> Iterator[list[Tensor]]:
    """Record the cross-attention of every forward pass inside the block.

    Yields:
        A list that grows by one tensor a layer and pass: attention probabilities ``[n, heads, pixels, tokens]``, with
        their gradients.  Clear it between passes.
    """
    maps: list[Tensor] = []
    layers: list[Any] = [module for name, module in unet.named_modules() if name.endswith(".attn2")]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(_Recorder(maps))
        yield maps
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


class _Recorder:
    """Attention as diffusers computes it without fused kernels, which never form the probabilities."""

    def __init__(self, maps: list[Tensor]) -> None:
        self._maps = maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self._maps.append(probabilities.unflatten(0, (len(hidden_states), attn.heads)))
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        result: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return result
