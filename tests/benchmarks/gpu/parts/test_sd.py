import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts import sd
from benchmarks.gpu.parts.erasures import CUTS
from benchmarks.gpu.parts.measuring import FAILED, OUT_OF_TIME
from benchmarks.gpu.parts.sd import FULL, TINY, OutOfTime, Size, Yardsticks, alarm, build_pipeline, count_tflop

BATCHES = [str(batch) for batch in TINY.batches]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled: tracing a U-Net takes seconds."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)


def part_of(out: Path, limit: float) -> Part:
    return Part("sd", scale="tiny", out=out, limit=limit)


def test_the_pipeline_has_the_parameters_of_stable_diffusion_1_4() -> None:
    pipeline = build_pipeline(FULL, torch.device("meta"))
    counts = {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}
    assert sd.parameter_counts(pipeline) == counts
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert len(pipeline.tokenizer) <= pipeline.text_encoder.config.vocab_size


def test_a_pass_takes_the_work_that_counting_by_hand_gives() -> None:
    assert count_tflop(FULL)["unet_pass"] == pytest.approx(unet_tflop_by_hand(), rel=0.01)


@pytest.mark.slow
def test_a_picture_takes_two_passes_a_step_and_the_decoder() -> None:
    tflop = count_tflop(TINY)
    assert tflop["picture"] == pytest.approx(8 * tflop["unet_pass"] + tflop["decoder"])
    assert tflop["decoder"] > 0


def test_rates_are_compared_with_what_is_known() -> None:
    assert Yardsticks(80.0, 800.0, 0.5).figures(2.0) == {
        "images_per_second": 2.0,
        "tflops": 160.0,
        "ratio_to_loop": 4.0,
        "share_of_peak": 0.2,
    }
    assert Yardsticks(80.0).figures(2.0) == {"images_per_second": 2.0, "tflops": 160.0}


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # numpy, of images that libraries pass on
@pytest.mark.slow
def test_the_part_at_tiny_scale(tmp_path: Path, uncompiled: None) -> None:
    part = part_of(tmp_path, 400)
    sd.run(part)
    assert not part.problems
    sampling, erasing = part.figures["sampling"], part.figures["erasing"]
    batches = [str(batch) for batch in TINY.batches]
    for mode, expected in (("peers_loop", ["1"]), ("eager", batches), ("compiled", batches)):
        assert sorted(sampling[mode]) == expected
        for row in sampling[mode].values():
            assert row["images_per_second"] > 0 and row["share_of_peak"] > 0
            assert mode == "peers_loop" or row["ratio_to_loop"] > 0
    assert set(erasing) == {"drawing", *CUTS}
    for name in CUTS:
        assert erasing[name]["hours_at_published_settings"] > 0
    assert erasing["mace"]["judges"] == erasing["dm2"]["judges"] == "stand-ins, not timed"


def test_without_time_every_row_says_so(tmp_path: Path, uncompiled: None) -> None:
    part = part_of(tmp_path, 0.0)
    sd.run(part)
    assert not part.problems
    sampling, erasing = part.figures["sampling"], part.figures["erasing"]
    assert part.figures["ceilings"] == OUT_OF_TIME
    assert sampling["peers_loop"] == {"1": OUT_OF_TIME}
    assert sampling["eager"] == sampling["compiled"] == dict.fromkeys(BATCHES, OUT_OF_TIME)
    assert erasing == dict.fromkeys(["drawing", *CUTS], OUT_OF_TIME)


def test_compiling_that_does_not_end_is_broken_off(
    tmp_path: Path, uncompiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(size: Size, model: Any, yardsticks: Yardsticks, batch: int) -> dict[str, Any]:
        if batch == 2:
            return {"images_per_second": 1.0, "seconds": 0.0, "warm_up_seconds": 0.0}
        time.sleep(60)
        raise AssertionError("not broken off")

    monkeypatch.setattr(sd, "measure_batch", measure)
    part = part_of(tmp_path, 3.0)
    eager = {batch: {"images_per_second": float(batch == 2), "seconds": 0.0} for batch in TINY.batches}
    model: Any = type("Model", (), {"compile": lambda model, backend: None})()
    sd.measure_compiled(part, TINY, model, Yardsticks(1.0), eager)
    compiled = part.figures["sampling"]["compiled"]
    assert compiled["2"]["images_per_second"] == 1.0
    assert compiled["1"] == compiled["4"] == OUT_OF_TIME
    assert not part.problems


def test_a_batch_that_fails_is_a_problem_and_the_next_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(size: Size, model: Any, yardsticks: Yardsticks, batch: int) -> dict[str, Any]:
        if batch == 2:
            raise torch.cuda.OutOfMemoryError("too much")
        return {"images_per_second": 1.0, "seconds": 0.0, "warm_up_seconds": 0.0}

    monkeypatch.setattr(sd, "measure_batch", measure)
    part = part_of(tmp_path, 60)
    model: Any = None
    rows = sd.measure_eager(part, replace(TINY, batches=(1, 2, 4)), model, Yardsticks(1.0), 0.0)
    assert list(rows) == [1, 4]
    assert part.problems == ["sampling.eager.2: out of memory"]
    assert part.figures["sampling"]["eager"]["2"] == FAILED


def test_sampling_leaves_time_to_the_erasures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(size: Size, model: Any, yardsticks: Yardsticks, batch: int) -> dict[str, Any]:
        return {"images_per_second": 1.0, "seconds": 3.0 * batch, "warm_up_seconds": 1.0}

    monkeypatch.setattr(sd, "measure_batch", measure)
    part = part_of(tmp_path, 60)
    model: Any = None
    # 60 s less the share that is reserved leave 34.8: enough for 4 x (6 + 1), not for 4 x (12 + 1).
    rows = sd.measure_eager(part, replace(TINY, batches=(1, 2, 4, 8)), model, Yardsticks(1.0), 0.0)
    assert list(rows) == [1, 2, 4]
    assert part.figures["sampling"]["eager"]["8"] == OUT_OF_TIME


def test_an_alarm_goes_off_and_is_gone_afterwards() -> None:
    with pytest.raises(OutOfTime), alarm(0.01):
        time.sleep(10)
    with alarm(60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def unet_tflop_by_hand() -> float:
    """The layers of Stable Diffusion 1.x's U-Net, one after the other, at 64 x 64 latents: 2 FLOP a multiplication."""
    macs = 0.0

    def conv(size: int, into: int, out: int, kernel: int = 3) -> None:
        nonlocal macs
        macs += size * size * into * out * kernel * kernel

    def resnet(size: int, into: int, out: int) -> None:
        nonlocal macs
        conv(size, into, out)
        conv(size, out, out)
        macs += 1280 * out
        if into != out:
            conv(size, into, out, 1)

    def transformer(size: int, width: int) -> None:
        nonlocal macs
        pixels = size * size
        conv(size, width, width, 1)
        conv(size, width, width, 1)
        macs += 4 * pixels * width * width + 2 * pixels * pixels * width
        macs += 2 * pixels * width * width + 2 * 77 * 768 * width + 2 * pixels * 77 * width
        macs += pixels * width * 8 * width + pixels * 4 * width * width

    conv(64, 4, 320)
    macs += 320 * 1280 + 1280 * 1280
    widths, sizes = (320, 640, 1280, 1280), (64, 32, 16, 8)
    skipped = [320]
    width = 320
    for level, (out, size) in enumerate(zip(widths, sizes, strict=True)):
        for _ in range(2):
            resnet(size, width, out)
            width = out
            if level < 3:
                transformer(size, width)
            skipped.append(width)
        if level < 3:
            conv(size // 2, width, width)
            skipped.append(width)
    resnet(8, 1280, 1280)
    transformer(8, 1280)
    resnet(8, 1280, 1280)
    for level, (out, size) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
        for _ in range(3):
            resnet(size, width + skipped.pop(), out)
            width = out
            if level < 3:
                transformer(size, width)
        if level:
            conv(2 * size, width, width)
    conv(64, 320, 4)
    assert not skipped
    return 2 * macs / 1e12


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The global generator goes on as it was, and garbage is looked for where it was."""
    monkeypatch.setattr(sd, "gc", SimpleNamespace(freeze=int))
    with torch.random.fork_rng(devices=[]):
        yield
