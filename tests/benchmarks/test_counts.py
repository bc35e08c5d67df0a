"""What is counted of an image and of an attack: what is shared is counted once, and all else as often as it is done.

Every operation goes through Python several times, so that a count takes seconds at any size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import counts
from benchmarks.counting import Work
from benchmarks.counts import ROWS, count_attack, count_loop, count_sampling, count_training, page, shown, table
from benchmarks.gpu.parts.erasures import cut_sampling_passes
from benchmarks.gpu.parts.sd import TINY, build_pipeline

ROOT = Path(__file__).parents[2]
SIZE = replace(TINY, steps=3, text={**TINY.text, "num_hidden_layers": 1})
MANY, DISTINCT = 16, 4
MIXED, FLOAT16 = partial(count_loop, SIZE, mixed=True), partial(count_loop, SIZE, mixed=False)


@pytest.fixture(scope="module")
def loop() -> Work:
    return FLOAT16()


@pytest.fixture(scope="module")
def one() -> Work:
    return count_sampling(SIZE, 1)


@pytest.fixture(scope="module")
def many() -> Iterator[Work]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "prompts_of", lambda count: [f"number {k % DISTINCT}" for k in range(count)])
        yield count_sampling(SIZE, MANY)


def test_the_loop_calls_the_unet_once_a_step_for_two_rows(loop: Work) -> None:
    assert (loop.unet_calls, loop.unet_rows, loop.text_rows, loop.bytes_cast) == (3, 6, 2, 0)
    assert loop.operations == loop.launches
    # For the scheduler's numbers at each step, and for the image.
    assert loop.waits == 6 * 3 + 1
    # An image of 16 pixels a side in half precision.
    assert loop.bytes_to_host == 2 * 3 * 16 * 16


def test_a_batch_calls_the_unet_once_a_step_for_all(many: Work) -> None:
    assert (MANY * many.unet_calls, many.unet_rows) == (3, 6)
    # Starting noise in float32 is the most that goes to the GPU, and pixels in bytes are all that comes back.
    assert 4 * 4 * 8 * 8 < many.bytes_to_gpu < 2 * 4 * 4 * 8 * 8
    assert many.bytes_to_host == 3 * 16 * 16


def test_a_batch_shares_operations_texts_and_casts(one: Work, many: Work) -> None:
    assert many.operations < 1.3 * one.operations / MANY
    # The empty text, and each that differs.
    assert (one.text_rows, MANY * many.text_rows) == (2, 1 + DISTINCT)
    assert many.bytes_cast < 2 * one.bytes_cast / MANY


def test_few_rows_are_one_launch_a_step(loop: Work, one: Work) -> None:
    assert one.launches < 0.7 * loop.launches
    assert one.operations > loop.operations


def test_what_stands_before_the_first_cross_attention_is_computed_once(loop: Work, one: Work) -> None:
    """Torch's own counter says what that is: layers by name, of one row."""
    meta = torch.device("meta")
    unet = build_pipeline(SIZE, meta).unet
    with FlopCounterMode(display=False) as counter:
        unet(torch.zeros(1, 4, 8, 8, device=meta), 5, encoder_hidden_states=torch.zeros(1, 77, 16, device=meta))
    of_modules = {name: sum(flop.values()) for name, flop in counter.get_flop_counts().items()}
    shared = [
        name
        for name in of_modules
        if name.endswith((".conv_in", ".time_embedding", ".down_blocks.0.resnets.0"))
        # The timestep is one for all rows, wherever it enters.
        or (name.endswith(".time_emb_proj") and ".down_blocks.0.resnets.0." not in name)
    ]
    resnets = sum(name.endswith(".time_emb_proj") for name in of_modules)
    assert len(shared) == 3 + resnets - 1
    assert loop.flop - one.flop == SIZE.steps * sum(of_modules[name] for name in shared) > 0


def test_two_steps_foretell_the_third(loop: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "whole", lambda work_of, steps: work_of(steps))
    assert loop == FLOAT16()


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [MIXED, partial(count_sampling, SIZE, 1), partial(count_sampling, SIZE, 2, copied=False)]
)
def test_so_it_is_with_every_way(count: Callable[[], Work], monkeypatch: pytest.MonkeyPatch) -> None:
    foretold = count()
    monkeypatch.setattr(counts, "whole", lambda work_of, steps: work_of(steps))
    assert astuple(foretold) == pytest.approx(astuple(count()))


@pytest.mark.slow
def test_one_autocast_casts_every_weight_once_and_one_for_each_pass_at_each() -> None:
    loop, hooked = MIXED(), count_sampling(SIZE, 1, copied=False)
    assert loop.bytes_cast == count_loop(replace(SIZE, steps=1), mixed=True).bytes_cast
    assert hooked.bytes_cast > 2 * count_sampling(replace(SIZE, steps=1), 1, copied=False).bytes_cast


@pytest.mark.slow
def test_prompts_that_are_attacked_together_share_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, together = (count_attack(SIZE, prompts, vocabulary=2000) for prompts in (1, MANY))
    assert (alone.unet_calls, alone.unet_rows) == (1, 1)
    assert (MANY * together.unet_calls, together.unet_rows) == (1, 1)
    assert together.operations < 1.3 * alone.operations / MANY
    assert together.flop == pytest.approx(alone.flop)
    # Of one prompt the pass and its gradients are recorded, of 16 they are not.
    assert alone.launches < 0.3 * alone.operations
    assert together.launches == together.operations
    monkeypatch.setattr(counts, "ATTACKED_STEPS", 5)
    assert count_attack(SIZE, 1, vocabulary=2000) == alone


@pytest.mark.slow
def test_a_training_step_samples_half_of_the_steps_on_average() -> None:
    stock, here = (count_training(SIZE, accelerated=accelerated) for accelerated in (False, True))
    assert stock.unet_calls == here.unet_calls == pytest.approx(cut_sampling_passes(SIZE.steps))
    assert stock.launches == stock.operations
    assert here.launches < 0.3 * stock.launches


def test_tables_have_all_counts() -> None:
    lines = table({"a": Work(unet_calls=50), "b": Work(flop=1.5e12)}).splitlines()
    assert lines[:3] == ["| | a | b |", "|---|---:|---:|", "| U-Net calls | 50 | 0 |"]
    assert "| TFLOP | 0 | 1.5 |" in lines
    assert len(lines) == 2 + len(ROWS)
    assert [shown(value) for value in (3.125, 12345.6, 0.00012345)] == ["3.125", "12,346", "0.0001234"]


def test_the_committed_page_is_of_this_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("count_loop", "count_sampling", "count_attack", "count_training"):
        monkeypatch.setattr(counts, name, lambda *arguments, **options: Work())
    committed = (ROOT / counts.PAGE).read_text(encoding="utf-8")

    def without_numbers(text: str) -> str:
        return re.sub(r"\d[\d.,]*(\+\w+)?", "#", text)

    assert without_numbers(committed) == without_numbers(page())
    assert len(committed) < 6000
