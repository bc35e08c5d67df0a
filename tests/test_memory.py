"""What happens when memory runs out, shown without a GPU: the U-Net and the judge fail above a given batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from erasebench import sampling
from erasebench.hyper_parameters import make_plugin
from erasebench.memory import BatchSize, BatchSizes, free_memory, largest_batch, limit_memory, out_of_memory
from erasebench.registry import ATTACKS
from erasebench.sampling import Sampler, fit_batch_sizes, sample
from tests.attacks.planted import PROMPTS, attack_context, planted_target
from tests.tiny import concept, tiny_model

MESSAGE = (
    "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 8.00 GiB of which 0.10 is free."
)


@contextmanager
def rows_that_fit(network: torch.nn.Module, rows: int) -> Iterator[list[int]]:
    """Let a network run out of memory above so many rows; yields the rows of each call."""
    calls: list[int] = []

    def check(module: Any, given: Sequence[Any], named: Any) -> None:
        calls.append(len(given[0]))
        if calls[-1] > rows:
            raise torch.OutOfMemoryError(MESSAGE)

    handle = network.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def squares(part: slice, most: int, calls: list[int]) -> list[int]:
    calls.append(part.stop - part.start)
    if calls[-1] > most:
        raise torch.OutOfMemoryError(MESSAGE)
    return [k * k for k in range(part.start, part.stop)]


@pytest.mark.parametrize(("rows", "most", "expected"), [
    (4, 9, [4, 4, 2]),
    (4, 2, [4, 2, 2, 2, 2, 2]),
    (4, 1, [4, 2, *[1] * 10]),
    (None, 9, [10, 5, 5]),
    (None, 4, [10, 5, 2, 2, 2, 2, 2]),
])  # fmt: skip
def test_batches_are_halved_until_they_fit_and_stay_so(rows: int | None, most: int, expected: list[int]) -> None:
    size, calls = BatchSize(rows), list[int]()
    found = [one for part in size.batches(10, lambda part: squares(part, most, calls)) for one in part]
    assert found == [k * k for k in range(10)] and calls == expected
    assert size.halvings == sum(call > most for call in calls)
    calls.clear()
    assert len([*size.batches(10, lambda part: squares(part, most, calls))]) == len(calls), "not tried again"


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        list(BatchSize(4).batches(3, lambda part: squares(part, 0, [])))
    assert list(BatchSize(4).batches(0, lambda part: squares(part, 0, []))) == []


def test_other_errors_are_not_taken_for_it() -> None:
    def fail(part: slice) -> None:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        list(BatchSize(4).batches(3, fail))


def test_a_batch_is_let_go_of_before_it_is_tried_again() -> None:
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def hold(part: slice) -> int:
        held = Held()
        assert len(alive) == 1, "what the failed batch held is still there"
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError(MESSAGE)
        del held
        return 1

    assert sum(BatchSize(4).batches(4, hold)) == 4


def check_out_of_memory(rows: int) -> None:
    model, prompts, seeds, sampler = tiny_model(), [*"abcde"], range(5), Sampler("ddim", 2)
    undisturbed = sample(model, prompts, seeds, sampler)
    told: list[int] = []
    with rows_that_fit(model.unet, rows) as calls:
        found = sample(model, prompts, seeds, sampler, progress=told.append)
    assert max(calls) > rows and model.batch_sizes.drawn.rows == rows and sum(told) == 5
    assert np.array_equal(found, undisturbed), "images depend on the memory that there was"
    assert model.batch_sizes.note == f"memory ran out: {rows} drawn at a time"


@pytest.mark.parametrize("rows", [1, 2])
def test_images_are_the_same_when_memory_runs_out(rows: int) -> None:
    check_out_of_memory(rows)


def test_the_procedure_finds_noise_that_a_batch_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(ids: Sequence[str], seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.randn((len(seeds), *shape), generator=torch.Generator("cpu").manual_seed(seeds[0]))

    monkeypatch.setattr(sampling, "starting_noise", shared)
    with pytest.raises(AssertionError, match="images depend on the memory that there was"):
        check_out_of_memory(2)


def test_decoded_latents_are_not_sampled_again() -> None:
    model, sampler = tiny_model(), Sampler("ddim", 2)
    undisturbed = sample(model, [*"abcde"], range(5), sampler)
    with rows_that_fit(model.unet, 99) as passes, rows_that_fit(model.vae.decoder, 2):
        found = sample(model, [*"abcde"], range(5), sampler)
    assert np.array_equal(found, undisturbed) and len(passes) == 2
    assert (model.batch_sizes.drawn.halvings, model.batch_sizes.decoded.rows) == (0, 2)
    with rows_that_fit(model.vae.encoder, 1):
        torch.testing.assert_close(model.encode_images(found), tiny_model().encode_images(found), rtol=0, atol=1e-5)


def test_what_the_user_said_is_where_halving_begins() -> None:
    model = tiny_model()
    with rows_that_fit(model.unet, 99) as calls:
        sample(model, [*"abcde"], range(5), Sampler("ddim", 1), batch_size=3)
    assert calls == [3, 2] and model.batch_sizes.drawn == BatchSize(16)


def test_the_prompts_of_an_attack_share_a_gradient_step_as_far_as_memory_goes() -> None:
    plugin = ATTACKS.get("unlearndiff")
    made = make_plugin(plugin.make, {**plugin.presets, "timesteps": 2, "steps": 3}).resolved([concept("church")])
    undisturbed = made.attack(planted_target(PROMPTS[:5], exact=True), attack_context())
    target = planted_target(PROMPTS[:5], exact=True)
    target.model.batch_sizes.drawn.rows = 1  # an image takes two rows
    with rows_that_fit(target.model.unet, 2):
        found = made.attack(target, attack_context())
    assert target.model.batch_sizes.searched == BatchSize(2, 1)
    for one, other in zip(found, undisturbed, strict=True):
        assert (one.prompt, one.steps, one.first_success) == (other.prompt, other.steps, other.first_success)
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("fixed", "each", "free", "expected"), [
    (0, 10, 100, 9),  # a tenth is not planned with
    (40, 10, 100, 5),
    (40, 10, 10**6, 32),
    (95, 10, 100, 1),
    (40, 0, 100, 32),
])  # fmt: skip
def test_the_largest_batch_is_on_the_line_through_two_measured_ones(
    fixed: int, each: int, free: int, expected: int
) -> None:
    assert largest_batch(lambda rows: fixed + each * rows, free, 32) == expected


def test_where_two_do_not_fit_one_is_the_largest() -> None:
    def peak(rows: int) -> int:
        if rows > 1:
            raise torch.OutOfMemoryError(MESSAGE)
        return 10

    assert largest_batch(peak, 1000, 32) == 1


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """A GPU of 24 GB, of which other programs have 4 and this one 6, 1 of these not in use."""
    shares: dict[int, float] = {}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 7)
    for name, answer in {
        "mem_get_info": (14 * 10**9, 24 * 10**9),
        "memory_reserved": 6 * 10**9,
        "memory_allocated": 5 * 10**9,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device=None, answer=answer: answer)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.update({device: share})
    )
    return shares


def test_free_memory_counts_what_this_process_holds_and_does_not_use(card: dict[int, float]) -> None:
    assert free_memory("cuda") == 15 * 10**9
    assert free_memory("cuda", 12) == 7 * 10**9, "of the 12, 5 are in use"
    assert free_memory("cuda", 100) == 15 * 10**9


def test_a_limit_is_a_share_of_the_card(card: dict[int, float]) -> None:
    limit_memory("cuda:1", 6)
    limit_memory("cuda:2", 99)
    limit_memory("cuda", 12)
    assert card == {1: 0.25, 2: 1.0, 7: 0.5}
    limit_memory("cuda", math.inf)
    assert card[7] == 1.0


def test_batch_sizes_are_fitted_to_the_images_and_the_decoder_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny_model(), list[int]()
    each = {"drawn": 100, "decoded": 250}
    monkeypatch.setattr(sampling, "free_memory", lambda device, gigabytes: 1000)

    def peak(device: Any, compute: Any) -> int:
        with rows_that_fit(model.unet, 99) as passes, rows_that_fit(model.vae.decoder, 99) as decoded:
            compute()
        rows.append(max([*passes, *decoded]))
        return rows[-1] * each["decoded" if decoded else "drawn"]

    monkeypatch.setattr(sampling, "peak_bytes", peak)
    monkeypatch.setattr(model.unet, "parameters", lambda: iter([torch.zeros(10)]))  # a copy of 40 bytes
    fit_batch_sizes(model, Sampler("ddim", 50), 32)
    assert rows == [1, 1, 1, 2, 1, 2], "one image and two, first sampled, then decoded, after one of each"
    assert model.batch_sizes == BatchSizes(BatchSize(8), BatchSize(3))
    fit_batch_sizes(model, Sampler("ddim", 50), 4)
    assert model.batch_sizes.drawn.rows == 4


@pytest.mark.parametrize(("stage", "dtype", "gigabytes", "checkpointed", "said"), [
    ("generate", "float32", None, False, "image; what would fit: a smaller --size, --dtype bfloat16, a card with"),
    ("generate", "bfloat16", 6.5, False, "fit: a smaller --size, a larger --max-memory than 6.5, a card with"),
    ("erase", "float32", None, False, "step; what would fit: --gradient-checkpointing on, --dtype bfloat16, a "),
    ("erase", "bfloat16", None, True, "step; what would fit: a smaller batch_size of the method, a card with"),
    ("attack", "bfloat16", None, False, "prompt; what would fit: --gradient-checkpointing on, a smaller --size, a"),
    ("judge", "float32", None, False, "single image; what would fit: a card with more free memory"),
    ("copy", "float32", 3, False, "a copy of the model; what would fit: a larger --max-memory than 3, a card"),
])  # fmt: skip
def test_what_would_fit_is_said_in_one_line_and_is_not_there_yet(
    stage: str, dtype: str, gigabytes: float | None, checkpointed: bool, said: str
) -> None:
    text = str(out_of_memory(torch.OutOfMemoryError(MESSAGE), "cuda:1", stage, dtype, gigabytes, checkpointed))
    assert text.startswith("the memory of cuda:1 ran out: 0.0 GB were in use, and 1.50 GiB needed beside them, for a ")
    assert said in text and text.endswith(" a card with more free memory") and "\n" not in text
