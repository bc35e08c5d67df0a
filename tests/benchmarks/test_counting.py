"""A GPU that counts: what it is asked for is counted as it is, and where it goes is where it would go on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting import GPU, Counter, Work, backward, counting, gradients
from benchmarks.gpu.parts.sd import TINY, build_pipeline
from erasebench.models.conditioning import Conditioning
from erasebench.models.recordings import Recording
from tests.tiny import tiny_model


@pytest.fixture
def counter() -> Iterator[Counter]:
    with counting() as counter:
        yield counter


def test_copies_and_numbers_that_the_host_reads(counter: Counter) -> None:
    host = torch.arange(6.0)
    moved = Work(operations=1, launches=1, bytes_to_gpu=24)
    assert counter.of(lambda: host.to(GPU)) == counter.of(lambda: torch.tensor(host.tolist(), device=GPU)) == moved
    there = host.to(GPU)
    read = Work(operations=1, launches=1, bytes_to_host=24, waits=1)
    assert counter.of(there.cpu) == counter.of(there.tolist) == read
    assert counter.of(lambda: float(there[2])) == Work(waits=1)


def test_the_host_computes(counter: Counter) -> None:
    host = torch.arange(6.0)
    assert counter.of(lambda: host.square().sum().item()) == Work()
    assert host.square().sum().item() == 55


def test_views_start_nothing_and_operations_that_torch_composes_are_counted_by_their_parts(counter: Counter) -> None:
    x = torch.zeros(2, 3, 4, device=GPU)
    assert counter.of(lambda: x.transpose(0, 1)[1:].unsqueeze(0).expand(5, -1, -1, -1)) == Work()
    assert counter.of(lambda: torch.empty_like(x)) == Work()
    # The view is of memory that is not in its order, and has to be copied.
    assert counter.of(lambda: x.transpose(0, 1).reshape(-1)).operations == 1
    layer = nn.Linear(4, 5, device=GPU)
    assert counter.of(lambda: functional.silu(layer(x))) == Work(operations=2, launches=2, flop=2 * 6 * 4 * 5)


def test_attention_is_one_operation(counter: Counter) -> None:
    query, key = torch.zeros(1, 2, 3, 8, device=GPU), torch.zeros(1, 2, 5, 8, device=GPU)
    work = counter.of(lambda: functional.scaled_dot_product_attention(query, key, key))
    # Two products of 3 by 8 by 5, for each of two heads.
    assert work == Work(operations=1, launches=1, flop=2 * 2 * 2 * 3 * 8 * 5)


def test_weights_are_cast_at_each_use_unless_they_are_trained(counter: Counter) -> None:
    layer, x = nn.Linear(4, 5, device=GPU), torch.zeros(2, 4, device=GPU)
    counter.watch([layer])

    def twice() -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            both: Tensor = layer(x) + layer(x)
        return both

    # Autocast keeps what it cast of a weight that asks for gradients; weights and biases have 25 numbers of two bytes.
    assert counter.of(twice).bytes_cast == 50
    layer.requires_grad_(False)
    assert counter.of(twice).bytes_cast == 100
    assert twice().dtype == torch.bfloat16


def test_a_graph_is_one_launch(counter: Counter) -> None:
    layer, x = nn.Linear(4, 4, device=GPU).requires_grad_(False), torch.zeros(2, 4, device=GPU)
    recording = Recording(lambda x: functional.silu(layer(layer(x))), [x])
    # Three operations in the graph; the input is copied there, and the output from there.
    assert counter.of(lambda: recording.replay([x])) == Work(operations=5, launches=3, flop=2 * 2 * 2 * 4 * 4)


def test_a_unet_takes_as_many_flop_and_operations_as_elsewhere() -> None:
    """FLOPs by torch's own counter; operations on a CPU, where attention is one as well."""

    def unet_of(device: torch.device) -> Callable[[], Tensor]:
        unet = build_pipeline(TINY, device).unet
        latents, text = torch.zeros(2, 4, 8, 8, device=device), torch.zeros(2, 77, 16, device=device)
        timestep = torch.tensor(5, device=device)
        return lambda: unet(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]

    on_cpu, on_meta = unet_of(torch.device("cpu")), unet_of(torch.device("meta"))
    with Writes() as written:  # type: ignore[no-untyped-call]
        on_cpu()
    with FlopCounterMode(display=False) as flop:
        on_meta()
    with counting() as counter:
        work = counter.of(unet_of(GPU))
    assert (work.unet_calls, work.unet_rows) == (1, 2)
    assert work.flop == flop.get_total_flops() > 0
    assert work.operations == written.count > 100


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations whose results have memory of their own, and are not only that."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in tree_leaves(args) if isinstance(one, Tensor)}
        made = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        new = any(one.untyped_storage().data_ptr() not in given for one in made)
        written = func._schema.is_mutable
        self.count += (new or written) and not func.overloadpacket.__name__.startswith(("empty", "new_empty"))
        return result


def test_gradients_are_autograd_s() -> None:
    """Through a U-Net; through a function defined in Python; to what was broadcast; none to what has no part in it."""
    model = tiny_model()
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    text = model.embed(["a church", "art"]).embeddings.requires_grad_()
    unused = torch.zeros(1, requires_grad=True)
    bias = torch.zeros(4, 1, 1, requires_grad=True)
    loss = Doubled.apply(None, (model.predict(latents, 500, Conditioning(text)) + bias).square().mean())
    expected = torch.autograd.grad(loss, [text, bias], retain_graph=True)
    *found, none = gradients([loss], [text, bias, unused])
    assert none is None
    for gradient, right in zip(found, expected, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient, right)
        assert right.abs().max() > 1e-5


def test_backward_adds_to_the_gradients_of_parameters() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    layer(x).square().mean().backward()
    expected = [2 * parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    backward(layer(x).square().mean())
    torch.testing.assert_close([parameter.grad for parameter in layer.parameters()], expected)


def test_a_backward_pass_is_counted(counter: Counter) -> None:
    x = torch.zeros(3, 4, device=GPU, requires_grad=True)
    weight = torch.zeros(4, 5, device=GPU)
    product = x @ weight
    work = counter.of(lambda: torch.autograd.grad(product.sum(), x))
    assert work.flop == 2 * 3 * 4 * 5


class Doubled(torch.autograd.Function):
    """Twice a tensor, behind an argument that is none."""

    @staticmethod
    def forward(ctx: Any, none: None, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, 2 * gradient
