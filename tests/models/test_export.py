"""Stock diffusers draws from an export what the erasure makes the model draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.methods.checkpoint import Checkpoint
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.export import LORA, export_lora, export_pipeline
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.models.sdxl import TIME_IDS
from erasebench.sampling import Sampler, sample, starting_noise
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, as_model, concept, differing, erase_context, state

LAYOUTS: list[Layout] = list(get_args(Layout))
PROMPTS, SEEDS, SAMPLER = ["a church", "art"], [3, 1], Sampler("ddim", 3, 4.0)
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
OUT = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.weight"
CONVOLUTION = "unet.mid_block.resnets.0.conv1.weight"


@pytest.fixture(params=LAYOUTS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unerased model's folder."""
    stock_pipeline(request.param).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def stock(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def queries(model: DiffusionModel) -> list[str]:
    """A layer of each text encoder, whose names depend on the version of transformers."""
    return [name for name in model.parameters() if name.endswith("layers.1.self_attn.q_proj.weight")]


def full(model: DiffusionModel) -> Erasure:
    rng = torch.Generator().manual_seed(0)
    own = state(model)
    names = (KEY, "unet.conv_in.bias", *queries(model))
    return Erasure({name: own[name] + 0.3 * torch.randn(own[name].shape, generator=rng) for name in names})


def low_rank(model: DiffusionModel, *names: str) -> Erasure:
    """Random factors, each of another rank."""
    rng, factors = torch.Generator().manual_seed(1), {}
    for rank, name in enumerate(names or (KEY, OUT, CONVOLUTION, *queries(model)), 1):
        own = model.parameters()[name]
        factors[name] = (
            torch.randn(len(own), rank, generator=rng),
            torch.randn(rank, own[0].numel(), generator=rng) / 5,
        )
    return Erasure(low_rank=factors)


@torch.no_grad()
def outputs(parts: Any) -> list[Tensor]:
    """What the U-Net and the text encoders answer to random input."""
    unet, named = parts.unet, {}
    encoders = [getattr(parts, name) for name in ("text_encoder", "text_encoder_2") if hasattr(parts, name)]
    rng = torch.Generator().manual_seed(2)
    x, text = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 7, unet.config.cross_attention_dim, generator=rng)
    ids = torch.randint(60, (2, 77), generator=rng)
    ids[:, 9] = encoders[0].config.eos_token_id
    if len(encoders) == 2:
        pooled = torch.randn(2, encoders[1].config.projection_dim, generator=rng)
        named["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.ones(2, TIME_IDS)}
    return [unet(x, 300, text, return_dict=False, **named)[0], *(encoder(ids)[0] for encoder in encoders)]


def erased_outputs(model: DiffusionModel, erasure: Erasure) -> list[Tensor]:
    with model.erased(erasure):
        return outputs(model)


@pytest.mark.parametrize("kind", [full, low_rank])
def test_a_pipeline_draws_the_same_pictures(kind: Any, base: Path, tmp_path: Path) -> None:
    model = as_model(stock(base))
    before, erasure = state(model), kind(model)
    export_pipeline(model, erasure, base, tmp_path / "diffusers")
    assert differing(before, state(model)) == set()
    pipeline = stock(tmp_path / "diffusers")
    noise = starting_noise(PROMPTS, SEEDS, model.latent_shape)
    drawn = pipeline(
        PROMPTS,
        latents=noise,
        num_inference_steps=SAMPLER.steps,
        guidance_scale=SAMPLER.guidance_scale,
        output_type="np",
    ).images
    with model.erased(erasure):
        wanted = sample(model, PROMPTS, SEEDS, SAMPLER)
    assert np.abs(drawn * 255 - wanted).max() < 1.01
    assert np.abs(sample(model, PROMPTS, SEEDS, SAMPLER).astype(int) - wanted).max() > 10, "the erasure shows"


def test_a_pipeline_is_read_back_as_the_same_erasure(base: Path, tmp_path: Path) -> None:
    model = as_model(stock(base))
    for kind in (full, low_rank):
        erasure = kind(model)
        export_pipeline(model, erasure, base, tmp_path / "diffusers")
        read = Checkpoint(str(tmp_path / "diffusers")).erase(model, [concept("church")], erase_context())
        assert set(read.weights) == {*erasure.weights, *erasure.low_rank}
        with model.erased(erasure):
            wanted = state(model)
        with model.erased(read):
            assert differing(wanted, state(model)) == set()


def test_a_pipeline_says_nothing_of_where_it_came_from(base: Path, tmp_path: Path) -> None:
    model = as_model(stock(base))
    export_pipeline(model, full(model), base, tmp_path / "diffusers")
    texts = [path.read_text() for path in (tmp_path / "diffusers").rglob("*.json")]
    assert len(texts) >= 6 and not any(str(tmp_path) in text for text in texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "diffusers"]
    index = json.loads((tmp_path / "diffusers" / "model_index.json").read_text())
    assert index == json.loads((base / "model_index.json").read_text())
    schedulers = [
        json.loads((tmp_path / f / "scheduler" / "scheduler_config.json").read_text()) for f in ("base", "diffusers")
    ]
    assert schedulers[0] == schedulers[1]


def test_a_lora_is_loaded_at_its_full_strength(base: Path, tmp_path: Path) -> None:
    model = as_model(stock(base))
    erasure = low_rank(model)
    erasure.save(tmp_path)  # another file of weights beside it
    export_lora(model, erasure, tmp_path / LORA)
    pipeline = stock(base)
    plain = outputs(pipeline)
    pipeline.load_lora_weights(tmp_path)
    found = outputs(pipeline)
    for part, wanted, own in zip(found, erased_outputs(model, erasure), plain, strict=True):
        torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-5)
        assert (part - own).abs().max() > 0.01, "the LoRA does something"


def test_a_lora_has_one_rank_and_no_alpha(base: Path, tmp_path: Path) -> None:
    """Versions of diffusers differ in what they make of several ranks."""
    model = as_model(stock(base))
    erasure = low_rank(model)
    export_lora(model, erasure, tmp_path / LORA)
    tensors = load_file(tmp_path / LORA)
    assert {tensor.shape[0 if "lora_A" in name else 1] for name, tensor in tensors.items()} == {len(erasure.low_rank)}
    assert not [name for name in tensors if "alpha" in name]


def test_a_lora_is_read_back_as_the_same_erasure(base: Path, tmp_path: Path) -> None:
    model = as_model(stock(base))
    erasure = low_rank(model)
    export_lora(model, erasure, tmp_path / LORA)
    read = Checkpoint(str(tmp_path / LORA)).erase(model, [concept("church")], erase_context())
    assert set(read.low_rank) == set(erasure.low_rank) and not read.weights
    for name, (up, down) in erasure.low_rank.items():
        torch.testing.assert_close(torch.matmul(*read.low_rank[name]), up @ down)


def test_what_cannot_be_a_lora(tmp_path: Path) -> None:
    model = as_model(stock_pipeline())
    token = next(name for name in model.parameters() if name.endswith("token_embedding.weight"))
    bad = {
        f"not low-rank: {KEY}, unet.conv_in.bias, {queries(model)[0]}; export the erasure as diffusers instead": full(
            model
        ),
        f"a LoRA cannot change {token}; export the erasure as diffusers instead": low_rank(model, KEY, token),
        "a LoRA cannot change unet.conv_in.bias; export": low_rank_of_bias(),
    }
    bad["not low-rank: unet.conv_in.bias; export"] = Erasure(
        {"unet.conv_in.bias": torch.zeros(8)}, low_rank(model, KEY).low_rank
    )
    for message, erasure in bad.items():
        with pytest.raises(EraseBenchError) as caught:
            export_lora(model, erasure, tmp_path / LORA)
        assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def low_rank_of_bias() -> Erasure:
    return Erasure(low_rank={"unet.conv_in.bias": (torch.ones(8, 1), torch.ones(1, 1))})


def test_long_lists_are_cut(tmp_path: Path) -> None:
    model = as_model(stock_pipeline())
    names = [name for name in model.parameters() if name.endswith("bias")][:9]
    with pytest.raises(EraseBenchError, match=f"not low-rank: {', '.join(names[:5])} and 4 more; export"):
        export_lora(model, Erasure({name: state(model)[name] for name in names}), tmp_path / LORA)


@pytest.mark.parametrize("weights", [True, False])
def test_a_rule_of_guidance_cannot_be_exported(weights: bool, tmp_path: Path) -> None:
    model = as_model(stock_pipeline())
    factors = low_rank(model, KEY).low_rank if weights else {}
    erasure = Erasure(low_rank=factors, guidance=ClassifierFreeGuidance("church"))
    reason = r"is a rule of guidance \(classifier-free\)" + (":" if weights else " and nothing else:")
    with pytest.raises(EraseBenchError, match=reason):
        export_lora(model, erasure, tmp_path / LORA)
    with pytest.raises(EraseBenchError, match=reason):
        export_pipeline(model, erasure, tmp_path, tmp_path / "diffusers")
    with pytest.raises(EraseBenchError, match="changes nothing"):
        export_pipeline(model, Erasure(), tmp_path, tmp_path / "diffusers")
    assert not list(tmp_path.iterdir())
