"""The parameters of a U-Net that a method trains, and training them without a second copy of the U-Net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from erasebench.errors import EraseBenchError, check_name

Pattern = Literal[
    "xattn",
    "xattn-kv",
    "xattn-v",
    "xlayer",
    "noxattn",
    "noxattn-modules",
    "selfattn",
    "selfattn-and-queries",
    "selflayer",
    "attn",
    "notime",
    "full-modules",
    "full",
]
"""``xattn``: all of the cross-attention.  ``xattn-kv``, ``xattn-v``: its key and value, or value, projections.
``noxattn``: all but the cross-attention, the time embedding and the output head (the norms and the residual blocks' own
time projections are in).  ``noxattn-modules``: every linear and convolution layer outside the cross-attention (no
norms; time embedding and output convolution are in).  ``selfattn``: the self-attention.  ``selfattn-and-queries``: that
and the queries of the cross-attention.  ``xlayer``: two layers of the cross-attention, the first and the third of
Stable Diffusion's up block 2.  ``selflayer``: two of the self-attention, the first of its down blocks 1 and 2.
``attn``: both attentions.  ``notime``: all but the time embedding and the output head.  ``full-modules``: every linear
and convolution layer (no norms).  ``full``: everything."""

LAYERS = {
    # CompVis's output_blocks 6 and 8, and input_blocks 4 and 7.
    "xlayer": ("up_blocks.2.attentions.0.", "up_blocks.2.attentions.2."),
    "selflayer": ("down_blocks.1.attentions.0.", "down_blocks.2.attentions.0."),
}
"""The modules that the patterns of single layers stand for."""
OUTSIDE = ("time_embedding.", "conv_norm_out.", "conv_out.")
"""The time embedding and the output head."""


def select_parameters(unet: nn.Module, pattern: Pattern) -> dict[str, nn.Parameter]:
    """The parameters of a U-Net that a pattern names.

    Raises:
        UnknownNameError: no such pattern.
        EraseBenchError: the U-Net has no such layers.
    """
    check_name("parameters", pattern, get_args(Pattern))
    layers = {name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}

    def chosen(name: str) -> bool:
        cross, itself = ".attn2." in name, ".attn1." in name
        match pattern:
            case "xattn":
                return cross
            case "xattn-kv":
                return ".attn2.to_k." in name or ".attn2.to_v." in name
            case "xattn-v":
                return ".attn2.to_v." in name
            case "noxattn":
                return not cross and not name.startswith(OUTSIDE)
            case "noxattn-modules":
                return not cross and name.rpartition(".")[0] in layers
            case "selfattn":
                return itself
            case "selfattn-and-queries":
                return itself or ".attn2.to_q." in name
            case "xlayer":
                return cross and name.startswith(LAYERS[pattern])
            case "selflayer":
                return itself and name.startswith(LAYERS[pattern])
            case "notime":
                return not name.startswith(OUTSIDE)
            case "full-modules":
                return name.rpartition(".")[0] in layers
            case "attn":
                return cross or itself
            case "full":
                return True

    parameters = {name: parameter for name, parameter in unet.named_parameters() if chosen(name)}
    if not parameters:
        raise EraseBenchError(f"the model has no parameters '{pattern}': {' or '.join(LAYERS.get(pattern, ()))}")
    return parameters


class TwoWeights:
    """Parameters with two values, the model's own and one in training; only these are held twice.

    Inside ``with TwoWeights(parameters) as weights:`` the parameters hold the values in training, inside
    ``with weights.frozen():`` again the model's own.  The latter are never written to.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self._own = {name: parameter.data for name, parameter in parameters.items()}
        self.trained: dict[str, Tensor] = {name: value.clone() for name, value in self._own.items()}

    def __enter__(self) -> TwoWeights:
        self._hold(self.trained)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(self._own)
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None

    @contextmanager
    def frozen(self, gradients: bool = False) -> Iterator[None]:
        """Hold the model's own values inside the block.

        Args:
            gradients: let gradients flow through the frozen model to what it is given; none by default.
        """
        self._hold(self._own)
        # A graph saves parameters, not their values: without the hook, a backward pass outside of the block would go
        # through the values in training.
        graph = saved_tensors_hooks(Tensor.detach, lambda value: value) if gradients else torch.no_grad()
        try:
            with graph:
                yield
        finally:
            self._hold(self.trained)

    def _hold(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.data = values[name]


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU, attention in plain mathematics: the backward pass of the fused kernel is much slower there."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
