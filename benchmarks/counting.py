"""A GPU that computes nothing but shapes, and counts what it is asked for.

Tensors of the device ``cuda`` have shapes and types, but no numbers; those of the CPU are computed as ever.  So a
program takes the ways that it would take on a GPU, at any size, on a machine that has none.  Where it reads a number of
the GPU it is given 1, and where it copies a tensor from there, zeros: what it does must not depend on those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, replace
from itertools import compress
from typing import Any
from unittest.mock import patch

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import CLIPTextModel

from erasebench.models import recordings

GPU = torch.device("cuda")
ATEN = torch.ops.aten
COMPOSED = torch._C.DispatchKey.CompositeImplicitAutograd
"""The key under which torch keeps what an operation is made of, if it is made of others."""
STARTS_NOTHING = {
    ATEN._unsafe_view,
    ATEN.empty,
    ATEN.empty_like,
    ATEN.empty_strided,
    ATEN.new_empty,
    ATEN.new_empty_strided,
}
"""Operations that start nothing on a GPU, beside those that torch itself calls views."""


@dataclass(frozen=True)
class Work:
    """What a computation asked of the GPU.

    Attributes:
        unet_calls: of the U-Net.
        unet_rows: predictions that these made.
        text_rows: texts that went through the text encoder.
        operations: of torch that write something, each at least one kernel.
        launches: the same, but all of a CUDA graph that is replayed are one.
        flop: of matrix products, convolutions and attention, a multiplication and an addition as two.
        bytes_to_gpu: copied from the host.
        bytes_to_host: copied from the GPU.
        waits: times that the host reads from the GPU; each time it waits until that has done all before.
        bytes_cast: weights that were written anew in another precision.
    """

    unet_calls: float = 0
    unet_rows: float = 0
    text_rows: float = 0
    operations: float = 0
    launches: float = 0
    flop: float = 0
    bytes_to_gpu: float = 0
    bytes_to_host: float = 0
    waits: float = 0
    bytes_cast: float = 0

    def __sub__(self, other: Work) -> Work:
        return Work(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> Work:
        return Work(*(factor * mine for mine in astuple(self)))


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sends operations to the GPU or to the host, and counts those of the GPU.

    Attributes:
        work: what was counted so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()
        self._weights: dict[int, Tensor] = {}
        self._replaying = False

    def watch(self, networks: Iterable[nn.Module]) -> None:
        """Count the casts of the networks' weights from now on."""
        self._weights.update({id(weight): weight for network in networks for weight in network.parameters()})

    def count(self, **counts: float) -> None:
        """Add to the counts of these names."""
        self.work = replace(self.work, **{name: getattr(self.work, name) + more for name, more in counts.items()})

    def of(self, compute: Callable[[], object]) -> Work:
        """The work of a computation."""
        before = self.work
        compute()
        return self.work - before

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Take all operations of the block for one launch."""
        self.count(launches=1)
        self._replaying = True
        try:
            yield
        finally:
            self._replaying = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func.namespace != "aten":  # such as to ask a tensor for its device
            return func(*args, **options)
        given = [one for one in tree_leaves((args, options)) if isinstance(one, Tensor)]
        target = torch.device(options.get("device") or "cpu")
        if target.type != GPU.type and not any(map(is_there, given)):
            with unset_fake_temporarily():
                return func(*args, **options)
        if func is ATEN._local_scalar_dense.default:
            self.count(waits=1)
            return 1
        if func is ATEN._to_copy.default and options.get("device") is not None and target.type == "cpu":
            self.count(operations=1, launches=not self._replaying, waits=1)
            with unset_fake_temporarily():
                copied = torch.zeros(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
            self.count(bytes_to_host=copied.nbytes)
            return copied
        # Not by func.decompose: it has rules for compilers, which take apart what is one kernel.
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSED):
            with self:
                return func._op_dk(COMPOSED, *args, **options)
        result = func(*args, **options)
        if not (func.is_view or func.overloadpacket in STARTS_NOTHING):
            self._count_operation(func, args, options, given, result)
        return result

    def _count_operation(self, func: Any, args: Any, options: Any, given: Sequence[Tensor], result: Any) -> None:
        self.count(operations=1, launches=not self._replaying)
        if formula := flop_registry.get(func.overloadpacket):
            self.count(flop=formula(*args, **options, out_val=result))
        if func in (ATEN._to_copy.default, ATEN.copy_.default):
            source = given[-1]
            if not is_there(source):
                self.count(bytes_to_gpu=source.nbytes)
            if id(source) in self._weights and source.dtype != result.dtype:
                self.count(bytes_cast=result.nbytes)


def is_there(tensor: Tensor) -> bool:
    """True for a tensor of the GPU."""
    # To ask for its device would be an operation by itself.
    return isinstance(tensor, FakeTensor) and tensor.fake_device.type == GPU.type


class StandIns(TorchFunctionMode):
    """Functions of torch that need a real GPU, or a tensor's numbers, by others that ask the same of the GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func not in STAND_INS:
            return func(*args, **(kwargs or {}))
        with self:
            return STAND_INS[func](*args, **(kwargs or {}))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention in one kernel, as GPUs compute it; torch takes it apart where there is none.

    Arguments and result are those of ``scaled_dot_product_attention``.
    """
    computed: tuple[Tensor, ...] = ATEN._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )
    return computed[0]


@torch.no_grad()
def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Tensor | None = None, **options: object
) -> tuple[Tensor | None, ...]:
    """``torch.autograd.grad`` of one output, node by node, since torch's own engine asks a real GPU for its streams."""
    (output,), edges = outputs, [get_gradient_edge(one)[:2] for one in inputs]
    nodes, ends = _in_order(output.grad_fn), {node for node, _ in edges}
    leading = set(ends)
    for node in reversed(nodes):
        if any(following in leading for following, _ in node.next_functions):
            leading.add(node)
    arrived: dict[Any, dict[int, Tensor]] = {node: {} for node in leading}
    arrived[output.grad_fn][output.output_nr] = torch.ones_like(output) if grad_outputs is None else grad_outputs
    for node in nodes:
        own = {} if node in ends else arrived.get(node, {})
        for (following, number), gradient in _backward(node, own) if own else ():
            if gradient is not None and following in arrived:
                expected, known = following._input_metadata[number], arrived[following].get(number)
                if gradient.shape != expected.shape:  # of what was broadcast
                    gradient = gradient.sum_to_size(expected.shape)
                gradient = gradient.to(expected.dtype)
                arrived[following][number] = gradient if known is None else known + gradient
    return tuple(arrived[node].get(number) for node, number in edges)


def backward(output: Tensor, **options: object) -> None:
    """``Tensor.backward``, likewise: to all parameters that ask for gradients."""
    leaves = [node.variable for node in _in_order(output.grad_fn) if hasattr(node, "variable")]
    for leaf, gradient in zip(leaves, gradients([output], leaves), strict=True):
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _backward(node: Any, own: Mapping[int, Tensor]) -> Iterable[tuple[tuple[Any, int], Tensor | None]]:
    """The gradients that a node passes on, each behind the node that it is for."""
    given = [own.get(number) for number in range(len(node._input_metadata))]
    defined_in_python = isinstance(node, BackwardCFunction)
    if defined_in_python:
        following = [one for one in node.next_functions if one[0] is not None]
        return zip(following, compress(node.apply(*given), node.needs_input_grad), strict=True)
    passed = node(*given)
    return zip(node.next_functions, passed if isinstance(passed, tuple) else (passed,), strict=False)


def _in_order(first: Any) -> list[Any]:
    """The nodes of autograd behind one, and that itself, each before those that follow it."""
    entered, left = set[Any](), list[Any]()
    stack = [(first, False)]
    while stack:
        node, done = stack.pop()
        if done:
            left.append(node)
        elif node not in entered:
            entered.add(node)
            stack += [(node, True), *((one, False) for one, _ in node.next_functions if one is not None)]
    return left[::-1]


STAND_INS: Mapping[Any, Callable[..., Any]] = {
    nn.functional.scaled_dot_product_attention: attention,
    torch.autograd.grad: gradients,
    Tensor.backward: backward,
    # It tells whether weights were put somewhere else, which nothing here does.
    Tensor.data_ptr: lambda tensor: 0,
}


@contextmanager
def counting() -> Iterator[Counter]:
    """Have a GPU that counts, until the block ends.  What is built in it is built on the GPU, or stays where it is.

    CUDA graphs are recorded at no cost: what a program does once is not what it does for an image.
    """
    counter = Counter()

    class Graph:
        """A recorded computation, computed again at each replay."""

        def __init__(
            self, compute: Callable[[], Sequence[Tensor | None]], device: torch.device, before: Graph | None = None
        ) -> None:
            self._compute, self.stream = compute, None
            self.results = compute()

        def replay(self) -> None:
            with counter.replaying(), torch.enable_grad():
                self.results = self._compute()

    def counted(network: type[nn.Module], names: dict[str, Callable[[Any], int]]) -> Any:
        forward = network.forward

        def count_and_forward(*args: Any, **options: Any) -> Any:
            result = forward(*args, **options)
            counter.count(**{name: rows(result[0]) for name, rows in names.items()})
            return result

        return patch.object(network, "forward", count_and_forward)

    with ExitStack() as stack:
        for patched in (
            counted(UNet2DConditionModel, {"unet_calls": lambda predicted: 1, "unet_rows": len}),
            counted(CLIPTextModel, {"text_rows": len}),
            # To move a network would swap its tensors for others, which tensors without numbers do not allow.
            patch.object(nn.Module, "_apply", lambda network, *_, **__: network),
            patch.object(torch.cuda, "synchronize", lambda device=None: None),
            # One by one, as tensors without numbers do it, would be other work.
            patch.object(FakeTensor, "tolist", lambda tensor: tensor.cpu().numpy().tolist()),
            # Optimizers take all parameters at once where they know their type.
            patch.object(optimizer, "_foreach_supported_types", [*optimizer._foreach_supported_types, FakeTensor]),
            patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            patch("torch.cuda.is_bf16_supported", lambda: True),
            patch.object(recordings, "Graph", Graph),
            patch.object(recordings, "_warm_up", lambda device, compute: compute()),
            patch.object(recordings.Recorder, "_has_room", lambda recorder, device: True),
        ):
            stack.enter_context(patched)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(counter)
        stack.enter_context(StandIns())
        yield counter
