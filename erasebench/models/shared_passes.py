"""U-Net calls of guided sampling, without what they have in common: the same predictions, up to rounding.

Every step of a batch predicts noise for the same latents, at one timestep, with several texts that do not change from
step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def shared_passes(unet: Any) -> Iterator[None]:
    """Make a U-Net cheaper to sample from, until the block ends.

    - Latents ``[n, c, h, w]`` may come with text ``[k n, length, width]`` for k texts: what stands before the first
      cross-attention is then computed once, not k times.  All rows share one timestep.  Where a pooled embedding of the
      text is added to the timestep's, nothing stands before the text.
    - The keys and values of a text are computed once for all calls that are given the same tensor.
    - On a CPU, convolutions keep channels last: oneDNN is faster at that.  Norms do not: PyTorch is slower at those.

    Args:
        unet: a ``UNet2DConditionModel`` of diffusers.
    """
    with ExitStack() as stack:
        _share_text(unet, stack)
        share_latents(unet, stack)
        if next(unet.parameters()).device.type == "cpu":
            _keep_channels_last(unet, stack)
        yield


def _share_text(unet: nn.Module, stack: ExitStack) -> None:
    for name, module in unet.named_modules():
        if name.endswith((".attn2.to_k", ".attn2.to_v")):
            _shadow(module, "forward", _remember_last(module.forward), stack)


def share_latents(unet: Any, stack: ExitStack) -> None:
    """Let latents ``[n, c, h, w]`` come with text ``[k n, length, width]``, until the stack is closed."""

    def one_timestep(module: nn.Module, inputs: Any, embedding: Tensor) -> Tensor:
        return embedding[:1]

    def repeat_input(module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> Any:
        return (_repeat(inputs[0], len(options["encoder_hidden_states"])), *inputs[1:]), options

    def repeat_skipped(module: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
        rows = len(options["hidden_states"])
        skipped = tuple(_repeat(tensor, rows) for tensor in options["res_hidden_states_tuple"])
        return inputs, {**options, "res_hidden_states_tuple": skipped}

    hooks = [unet.time_embedding.register_forward_hook(one_timestep)]
    transformers = [attention for block in unet.down_blocks for attention in getattr(block, "attentions", ())]
    # With a pooled embedding of the text in the timestep's, the text is there from the beginning.
    readers = [*transformers, unet.mid_block] if unet.config.addition_embed_type is None else [unet]
    hooks += [module.register_forward_pre_hook(repeat_input, with_kwargs=True) for module in readers]
    hooks += [block.register_forward_pre_hook(repeat_skipped, with_kwargs=True) for block in unet.up_blocks]
    for hook in hooks:
        stack.callback(hook.remove)


def _keep_channels_last(unet: nn.Module, stack: ExitStack) -> None:
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.contiguous(memory_format=torch.channels_last)
            _shadow(module, "weight", weight, stack)
        elif isinstance(module, nn.GroupNorm):
            hook = module.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(),))
            stack.callback(hook.remove)


def _repeat(tensor: Tensor, rows: int) -> Tensor:
    """The tensor as often as it takes to make so many rows."""
    return tensor if len(tensor) == rows else torch.cat([tensor] * (rows // len(tensor)))


def _shadow(module: nn.Module, name: str, value: Any, stack: ExitStack) -> None:
    """Put a value before an attribute of a module; what was there comes back when the stack closes."""
    own = vars(module)
    before = {name: own[name]} if name in own else {}
    own[name] = value

    def restore() -> None:
        del own[name]
        own.update(before)

    stack.callback(restore)


def _remember_last(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, called again only for another object than the last time."""
    last: tuple[Any, Tensor] | None = None

    def remembering(argument: Tensor, *rest: Any) -> Tensor:
        nonlocal last
        if last is None or last[0] is not argument:
            last = argument, function(argument, *rest)
        return last[1]

    return remembering
