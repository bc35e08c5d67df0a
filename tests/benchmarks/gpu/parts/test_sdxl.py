from pathlib import Path

import pytest
import torch

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts import sdxl
from benchmarks.gpu.parts.measuring import OUT_OF_TIME
from benchmarks.gpu.parts.sdxl import FULL, TINY, build_pipeline, count_tflop


def test_the_pipeline_has_the_parameters_of_stable_diffusion_xl() -> None:
    pipeline = build_pipeline(FULL, torch.device("meta"))
    # As the model card and the checkpoints on the hub have them.
    counts = {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "vae": 83_653_863}
    found = {name: sum(one.numel() for one in getattr(pipeline, name).parameters()) for name in counts}
    assert found == counts
    assert pipeline.unet.config.projection_class_embeddings_input_dim == 2816


def test_an_image_takes_two_passes_a_step_and_the_decoder() -> None:
    tflop = count_tflop(TINY)
    assert tflop["image"] == pytest.approx(2 * TINY.size.steps * tflop["unet_pass"] + tflop["decoder"])
    assert tflop["decoder"] > 0


@pytest.mark.slow
def test_the_part_at_tiny_scale(tmp_path: Path) -> None:
    part = Part("sdxl", scale="tiny", out=tmp_path, limit=300)
    sdxl.run(part)
    assert not part.problems
    sampling = part.figures["sampling"]
    rows = [sampling["peers_loop"]["1"], *(sampling["eager"][str(batch)] for batch in TINY.size.batches)]
    assert all(row["images_per_second"] > 0 for row in rows)
    assert [row["ratio_to_loop"] for row in rows[1:]] == pytest.approx(
        [row["images_per_second"] / rows[0]["images_per_second"] for row in rows[1:]], rel=1e-2
    )


def test_without_time_every_row_says_so(tmp_path: Path) -> None:
    part = Part("sdxl", scale="tiny", out=tmp_path, limit=0.0)
    sdxl.run(part)
    assert not part.problems
    assert part.figures["ceilings"] == OUT_OF_TIME
    assert set(part.figures["sampling"]["eager"].values()) == {OUT_OF_TIME}
