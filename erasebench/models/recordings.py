"""Passes of a U-Net on a GPU that are recorded as CUDA graphs: replayed, all their kernels are launched at once.

Of few rows, a GPU is done with a kernel before the next has been launched.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from erasebench.memory import GB, SPARE, free_memory

MAX_RECORDED_ROWS = 16
"""Up to so many rows, a pass without gradients takes no longer than its kernels take to be launched."""
MAX_TRAINED_ROWS = 8
"""So it is with the pass and its gradients."""
RECORDINGS = 4
"""Kept at a time, of different shapes; each holds the memory of its pass."""
MAX_KEYS = 16
"""Passes that are remembered: those that come again are recorded."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS[:3])
"""The attributes in which torch keeps the hooks of a layer, and those of all layers."""
FREE_U = ("s1", "s2", "b1", "b2")
"""Factors by which diffusers scales what a block is given, where FreeU is on."""


class Graph:
    """The computation of a function, recorded.

    Attributes:
        results: what it returned, in memory into which every replay writes.
        stream: on which it was recorded.

    Args:
        compute: the function, which was called before, so that libraries have chosen their kernels.
        device: a GPU.
        before: another graph, whose memory this one reads.
    """

    def __init__(
        self, compute: Callable[[], Sequence[Tensor | None]], device: torch.device, before: Graph | None = None
    ) -> None:
        self._graph = torch.cuda.CUDAGraph()
        # The stream says which GPU it is: by itself a graph is of the first.
        self.stream: Any = before.stream if before else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        pool = before._graph.pool() if before else None
        with torch.cuda.stream(self.stream), torch.cuda.graph(self._graph, pool=pool, stream=self.stream):
            self.results = compute()

    def replay(self) -> None:
        """Compute the same again, of what is now in the tensors that the function read."""
        self._graph.replay()


class Recording:
    """A pass without gradients.

    Args:
        predict: computes it.
        inputs: of the shapes and types of all that it is given.
    """

    def __init__(self, predict: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in inputs]
            _warm_up(inputs[0].device, lambda: predict(*self._inputs))
            self._graph = Graph(lambda: [predict(*self._inputs)], inputs[0].device)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """The pass for other values of the inputs."""
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        (output,) = self._graph.results
        assert output is not None
        return output.clone()


class GradientRecording:
    """A pass and its gradients: to the inputs and the parameters that ask for them.

    What the backward pass needs is kept in one place, which it overwrites: it has to come before the next forward pass,
    and once.

    Args:
        predict: computes the pass.
        inputs: of the shapes and types of all that it is given; those that require gradients will get them.
        parameters: that require gradients.
    """

    def __init__(
        self, predict: Callable[..., Tensor], inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
    ) -> None:
        self._inputs = [
            torch.empty_like(tensor).copy_(tensor.detach()).requires_grad_(tensor.requires_grad) for tensor in inputs
        ]
        self.parameters = list(parameters)
        leaves = [*(tensor for tensor in self._inputs if tensor.requires_grad), *parameters]

        def forward() -> list[Tensor]:
            self._output = predict(*self._inputs)
            return [self._output.detach()]

        def backward() -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(self._output, leaves, self._gradient, allow_unused=True)

        def both() -> None:
            self._gradient = torch.ones_like(*forward())
            backward()

        with torch.enable_grad():
            _warm_up(inputs[0].device, both)
            self._forward = Graph(forward, inputs[0].device)
            self._backward = Graph(backward, inputs[0].device, self._forward)
        # It would keep the places where gradients arrive, which belong to the stream of the recording.
        del self._output
        self._turn = 0
        self._open: Callable[[], object] = lambda: None
        """Gives something as long as the backward pass of the last forward pass may come."""

    @property
    def is_busy(self) -> bool:
        """True if a backward pass is still to come, or may be."""
        return self._open() is not None

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """The pass for other values of the inputs, with gradients to them and to the parameters.

        Raises:
            RuntimeError: in the backward pass, if there was another forward or backward pass in between, or if weights
                were written to.
        """
        predicted: Tensor = _Replay.apply(self, *inputs, *self.parameters)
        return predicted

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, int, object]:
        """The prediction; and what :meth:`backward` is to be told, and has to be kept until then."""
        for place, value in zip(self._inputs, inputs, strict=False):
            place.copy_(value)
        self._forward.replay()
        (output,) = self._forward.results
        assert output is not None
        self._turn += 1
        ticket = _Ticket()
        self._open = weakref.ref(ticket)
        return output.clone(), self._turn, ticket

    def backward(self, gradient: Tensor, turn: int) -> list[Tensor | None]:
        """Gradients to the inputs and the parameters; None to those that require none."""
        if turn != self._turn:
            raise RuntimeError("a recorded pass was made again, or gone back through, before this backward pass")
        self._turn += 1
        self._gradient.copy_(gradient)
        self._backward.replay()
        gradients = [None if one is None else one.clone() for one in self._backward.results]
        of_parameters = gradients[len(gradients) - len(self.parameters) :]
        of_inputs = iter(gradients)
        return [next(of_inputs) if tensor.requires_grad else None for tensor in self._inputs] + of_parameters


class _Ticket:
    """Kept by whoever will ask for gradients."""


class _Replay(torch.autograd.Function):
    """A recorded pass, to autograd."""

    @staticmethod
    def forward(ctx: Any, recording: GradientRecording, *tensors: Tensor) -> Tensor:
        predicted, ctx.turn, ctx.ticket = recording.forward(tensors)
        ctx.recording = recording
        ctx.save_for_backward(*recording.parameters)
        return predicted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.ticket = None
        _ = ctx.saved_tensors  # autograd complains if they were written to
        return None, *ctx.recording.backward(gradient, ctx.turn)


def predict_flat(
    unet: Any, added: Iterable[str], latents: Tensor, timesteps: Tensor, text: Tensor, *more: Tensor
) -> Tensor:
    """The prediction of a U-Net, of tensors alone: ``more`` are its added conditions, which ``added`` names."""
    named = {"added_cond_kwargs": dict(zip(added, more, strict=True))} if more else {}
    predicted: Tensor = unet(latents, timesteps, encoder_hidden_states=text, return_dict=False, **named)[0]
    return predicted


def _warm_up(device: torch.device, compute: Callable[[], object]) -> None:
    """Compute something twice on the side, so that libraries have chosen their kernels when it is recorded."""
    side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(2):
            compute()
    torch.cuda.current_stream(device).wait_stream(side)


class Replayed(Protocol):
    """A :class:`Recording` or a :class:`GradientRecording`."""

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """The pass for other values of the inputs."""
        ...


class Recordings:
    """The recordings that were used last, by what they are of."""

    def __init__(self) -> None:
        self._recordings: dict[Hashable, Replayed | None] = {}
        SPARE.add(self)

    def get(self, key: Hashable, record: Callable[[], Replayed | None]) -> Replayed | None:
        """A recording, made if it is not there; None if it cannot be made, and is not to be tried again.

        Args:
            key: what it is of.
            record: makes it.
        """
        if key in self._recordings:
            recording = self._recordings.pop(key)
        else:
            if len(self._recordings) >= RECORDINGS:
                del self._recordings[next(iter(self._recordings))]
            recording = _try(record)
        self._recordings[key] = recording  # the last used is the last in order
        return recording

    def __len__(self) -> int:
        return sum(recording is not None for recording in self._recordings.values())

    def clear(self) -> None:
        """Give their memory back."""
        self._recordings.clear()


def _try(record: Callable[[], Replayed | None]) -> Replayed | None:
    """A recording, or None where memory does not suffice for it, or the pass does what cannot be recorded."""
    with suppress(RuntimeError):  # running out of memory is one
        return record()
    # Not before the error is gone, which keeps alive what there was.
    torch.cuda.empty_cache()
    return None


class Recorder:
    """Records passes of a U-Net of few rows that come again, as in training and in attacks.

    It does so on a GPU of whose memory half is free, for a U-Net without hooks, and with what computed its attention
    when it was loaded; all others are computed as ever.  The numbers are those of the same kernels.

    Args:
        unet: a ``UNet2DConditionModel`` of diffusers, as it was loaded.
        gigabytes: of the GPU that this process may have; the whole card if None.
    """

    def __init__(self, unet: nn.Module, gigabytes: float | None = None) -> None:
        self.gigabytes = gigabytes
        self._attention = Build.of(unet).attention
        self._recordings = Recordings()
        self._recent_keys: deque[Hashable] = deque(maxlen=MAX_KEYS)

    @property
    def count(self) -> int:
        """Recordings that there are."""
        return len(self._recordings)

    def clear(self) -> None:
        """Give the memory of all recordings back."""
        self._recordings.clear()

    def predict(
        self,
        unet: Any,
        latents: Tensor,
        timesteps: Tensor | float,
        conditions: Mapping[str, Any],
        dtype: torch.dtype,
    ) -> Tensor | None:
        """A recorded pass; None if it is none that is to be recorded.

        Args:
            unet: as it is now.
            latents: ``[n, c, h, w]``.
            timesteps: one for all, or ``[n]``.
            conditions: what the U-Net is given besides, by its own names.
            dtype: of mixed precision, or float32.
        """
        if not conditions.keys() <= {"encoder_hidden_states", "added_cond_kwargs"}:
            return None
        text, added = conditions["encoder_hidden_states"], dict(conditions.get("added_cond_kwargs", {}))
        inputs = [latents, torch.as_tensor(timesteps, device=latents.device), text, *added.values()]
        parameters = list(unet.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        trains = torch.is_grad_enabled() and (bool(trained) or any(tensor.requires_grad for tensor in inputs))
        if len(text) > (MAX_TRAINED_ROWS if trains else MAX_RECORDED_ROWS) or unet.is_gradient_checkpointing:
            return None
        build = Build.of(unet)
        if build.hooked or build.attention != self._attention:
            return None
        key = (
            trains,
            dtype,
            tuple(added),
            tuple((tensor.dtype, tensor.shape, tensor.requires_grad) for tensor in inputs),
            tuple((id(one), one.data_ptr(), one.shape, one.requires_grad) for one in parameters),
            id(unet),
            build,
        )
        if key not in self._recent_keys:
            self._recent_keys.append(key)
            return None

        def compute(*inputs: Tensor) -> Tensor:
            mixed = dtype != torch.float32
            with torch.autocast(latents.device.type, dtype=dtype, enabled=mixed, cache_enabled=False):
                return predict_flat(unet, added, *inputs)

        def record() -> Replayed | None:
            if not self._has_room(latents.device):
                return None
            return GradientRecording(compute, inputs, trained) if trains else Recording(compute, inputs)

        recording = self._recordings.get(key, record)
        if recording is None or (isinstance(recording, GradientRecording) and recording.is_busy):
            return None
        return recording.replay(inputs)

    def _has_room(self, device: torch.device) -> bool:
        whole = torch.cuda.mem_get_info(device)[1] if self.gigabytes is None else self.gigabytes * GB
        return free_memory(device, self.gigabytes) > whole / 2


@dataclass(frozen=True)
class Build:
    """The state of a network, besides its weights, that others may have changed.

    Attributes:
        hooked: whether any layer or weight has hooks, which may look at it or change it, or computes in a way of its
            own.
        layers: their types, and whether they are in training mode, in which dropout draws.
        attention: what computes attention, layer by layer.
        adapters: of peft, layer by layer: whether they are off, whether they are merged, and which are used, with what
            factor.
    """

    hooked: bool
    layers: tuple[tuple[type, bool], ...]
    attention: tuple[type, ...]
    adapters: tuple[tuple[bool, bool, tuple[tuple[str, float], ...]], ...]

    @classmethod
    def of(cls, network: nn.Module) -> Build:
        """The build of a network as it is now."""
        hooked = any(getattr(torch.nn.modules.module, name) for name in GLOBAL_HOOKS)
        layers, attention = list[tuple[type, bool]](), list[type]()
        adapters = list[tuple[bool, bool, tuple[tuple[str, float], ...]]]()
        layer: Any
        for layer in network.modules():
            own = vars(layer)
            hooked = hooked or "forward" in own or any(own[name] for name in HOOKS)
            hooked = hooked or any(own.get(name) is not None for name in FREE_U)
            hooked = hooked or any(one is not None and one._backward_hooks for one in layer._parameters.values())
            layers.append((type(layer), layer.training))
            if processor := own.get("processor", layer._modules.get("processor")):
                attention.append(type(processor))
            if isinstance(getattr(type(layer), "disable_adapters", None), property):
                factors = tuple((name, layer.scaling[name]) for name in layer.active_adapters if name in layer.scaling)
                adapters.append((layer.disable_adapters, layer.merged, factors))
        return cls(hooked, tuple(layers), tuple(attention), tuple(adapters))
