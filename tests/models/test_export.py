"""Stock diffusers draws from an export what the erasure makes the model draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.methods.checkpoint import Checkpoint
from erasebench.models.conditioning import padded_ids
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.export import (
    KOHYA_LORA,
    LORA,
    export_kohya_lora,
    export_lora,
    export_pipeline,
    export_single_file,
)
from erasebench.models.families import STABLE_DIFFUSION_XL
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.models.sdxl import TIME_IDS
from erasebench.sampling import Sampler, sample, starting_noise
from tests.marks import first_quick
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, as_model, concept, differing, erase_context, state, tiny_model

PROMPTS, SEEDS, SAMPLER = ["a church", "art"], [3, 1], Sampler("ddim", 3, 4.0)
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
OUT = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.weight"
CONVOLUTION = "unet.mid_block.resnets.0.conv1.weight"


@pytest.fixture(scope="module", params=["sd1", "sdxl", pytest.param("sd2", marks=pytest.mark.slow)])
def layout(request: pytest.FixtureRequest) -> Layout:
    found: Layout = request.param
    return found


@pytest.fixture(scope="module")
def base(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unerased model's folder."""
    folder = tmp_path_factory.mktemp(layout) / "base"
    stock_pipeline(layout).save_pretrained(folder)
    return folder


@pytest.fixture
def model(layout: Layout) -> DiffusionModel:
    """The unerased model."""
    return tiny_model(layout)


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
    """Random factors of ranks from 1 to 5."""
    rng, factors = torch.Generator().manual_seed(1), {}
    for number, name in enumerate(names or (KEY, OUT, CONVOLUTION, *queries(model))):
        own, rank = model.parameters()[name], number % 5 + 1
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


@pytest.mark.parametrize("kind", first_quick([low_rank, full]))
def test_a_pipeline_draws_the_same_pictures(kind: Any, model: DiffusionModel, base: Path, tmp_path: Path) -> None:
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


def test_a_pipeline_is_read_back_as_the_same_erasure(model: DiffusionModel, base: Path, tmp_path: Path) -> None:
    for kind in (full, low_rank):
        erasure = kind(model)
        export_pipeline(model, erasure, base, tmp_path / "diffusers")
        read = Checkpoint(str(tmp_path / "diffusers")).erase(model, [concept("church")], erase_context())
        assert set(read.weights) == {*erasure.weights, *erasure.low_rank}
        with model.erased(erasure):
            wanted = state(model)
        with model.erased(read):
            assert differing(wanted, state(model)) == set()


def test_a_pipeline_says_nothing_of_where_it_came_from(model: DiffusionModel, base: Path, tmp_path: Path) -> None:
    export_pipeline(model, full(model), base, tmp_path / "diffusers")
    texts = [path.read_text() for path in (tmp_path / "diffusers").rglob("*.json")]
    assert len(texts) >= 6 and not any(str(folder) in text for text in texts for folder in (base, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["diffusers"]
    index = json.loads((tmp_path / "diffusers" / "model_index.json").read_text())
    assert index == json.loads((base / "model_index.json").read_text())
    schedulers = [
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        for folder in (base, tmp_path / "diffusers")
    ]
    assert schedulers[0] == schedulers[1]


def test_a_lora_is_loaded_at_its_full_strength(model: DiffusionModel, base: Path, tmp_path: Path) -> None:
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


def test_a_lora_has_one_rank_and_no_alpha(model: DiffusionModel, tmp_path: Path) -> None:
    """Versions of diffusers differ in what they make of several ranks."""
    erasure = low_rank(model)
    export_lora(model, erasure, tmp_path / LORA)
    tensors = load_file(tmp_path / LORA)
    assert {tensor.shape[0 if "lora_A" in name else 1] for name, tensor in tensors.items()} == {len(erasure.low_rank)}
    assert not [name for name in tensors if "alpha" in name]


def test_a_lora_is_read_back_as_the_same_erasure(model: DiffusionModel, tmp_path: Path) -> None:
    erasure = low_rank(model)
    export_lora(model, erasure, tmp_path / LORA)
    read = Checkpoint(str(tmp_path / LORA)).erase(model, [concept("church")], erase_context())
    assert set(read.low_rank) == set(erasure.low_rank) and not read.weights
    for name, (up, down) in erasure.low_rank.items():
        torch.testing.assert_close(torch.matmul(*read.low_rank[name]), up @ down)


def test_what_cannot_be_a_lora(tmp_path: Path) -> None:
    model = tiny_model()
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
    model = tiny_model()
    names = [name for name in model.parameters() if name.endswith("bias")][:9]
    with pytest.raises(EraseBenchError, match=f"not low-rank: {', '.join(names[:5])} and 4 more; export"):
        export_lora(model, Erasure({name: state(model)[name] for name in names}), tmp_path / LORA)


@pytest.mark.parametrize("weights", [True, False])
def test_a_rule_of_guidance_cannot_be_exported(weights: bool, tmp_path: Path) -> None:
    model = tiny_model()
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


def fused(folder: Path, lora: Path) -> dict[str, Tensor]:
    """The model's parameters after diffusers has loaded a LoRA and fused it, by our names."""
    pipeline = stock(folder)
    pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return state(as_model(pipeline))


def check_near(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def kohya_names(model: DiffusionModel) -> list[str]:
    """Every layer that a LoRA can change, of which diffusers reads the name.

    By the original names it takes every upsampler for one behind attention, as those of Stable Diffusion XL are.
    """
    unread = "up_blocks.0.upsamplers" if model.family is STABLE_DIFFUSION_XL else "none"
    return [
        name
        for name, parameter in model.parameters().items()
        if parameter.ndim > 1 and (name.startswith("unet.") or ".layers." in name) and unread not in name
    ]


def test_a_low_rank_change_is_exact_as_a_kohya_lora(model: DiffusionModel, base: Path, tmp_path: Path) -> None:
    erasure = low_rank(model, *kohya_names(model))
    fit = export_kohya_lora(model, erasure, tmp_path / KOHYA_LORA, rank=1)
    assert (fit.rank, fit.omissions, str(fit)) == (5, (), "rank 5, exact")
    with model.erased(erasure):
        wanted = state(model)
    assert differing(wanted, state(model)) == set(erasure.low_rank)
    check_near(fused(base, tmp_path / KOHYA_LORA), wanted)
    read = Checkpoint(str(tmp_path / KOHYA_LORA)).erase(model, [concept("church")], erase_context())
    with model.erased(read):
        check_near(state(model), wanted)


def test_keys_of_a_kohya_lora_are_those_of_sd_scripts(model: DiffusionModel, tmp_path: Path) -> None:
    export_kohya_lora(model, low_rank(model), tmp_path / KOHYA_LORA)
    diffusers = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_mid_block_resnets_0_conv1",
        "lora_te_text_model_encoder_layers_1_self_attn_q_proj",
    }
    original = {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k",
        "lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_middle_block_0_in_layers_2",
        "lora_te1_text_model_encoder_layers_1_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_1_self_attn_q_proj",
    }
    stems, rank = (original, 5) if model.family is STABLE_DIFFUSION_XL else (diffusers, 4)
    halves = ("lora_up.weight", "lora_down.weight", "alpha")
    with safe_open(tmp_path / KOHYA_LORA, "pt") as opened:
        assert set(opened.keys()) == {f"{stem}.{half}" for stem in stems for half in halves}
        assert all(float(opened.get_tensor(f"{stem}.alpha")) == rank for stem in stems)
        about = opened.metadata()
    (tmp_path / "other").touch()
    assert (tmp_path / KOHYA_LORA).stat().st_mode == (tmp_path / "other").stat().st_mode, "others may read it"
    assert (about["ss_network_module"], about["ss_network_dim"]) == ("networks.lora", str(rank))
    assert about["modelspec.prediction_type"] == ("epsilon" if model.prediction_type == "epsilon" else "v")


@pytest.mark.parametrize("rank", [1, 3, 100])
def test_other_changes_are_approximated_as_well_as_a_rank_allows(rank: int, tmp_path: Path) -> None:
    model = tiny_model()
    stock_pipeline().save_pretrained(tmp_path / "base")
    own, rng = state(model), torch.Generator().manual_seed(0)
    change = {name: torch.randn(own[name].shape, generator=rng) for name in (KEY, OUT, CONVOLUTION)}
    bias = {"unet.conv_in.bias": torch.ones(8)}
    erasure = Erasure({name: own[name] + value for name, value in (change | bias).items()})
    fit = export_kohya_lora(model, erasure, tmp_path / KOHYA_LORA, rank)
    spectra = [np.linalg.svd(value.flatten(1).double().numpy(), compute_uv=False) for value in change.values()]
    # What is lost: the singular values that are cut off, and the bias.
    lost = sum(float((values[rank:] ** 2).sum()) for values in spectra) + 8
    whole = sum(float((values**2).sum()) for values in spectra) + 8
    assert fit.relative_error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert fit.rank == min(rank, max(len(values) for values in spectra))
    assert fit.omissions == ("unet.conv_in.bias",)
    assert str(fit).endswith("; no LoRA can hold unet.conv_in.bias")
    found = fused(tmp_path / "base", tmp_path / KOHYA_LORA)
    for (name, value), values in zip(change.items(), spectra, strict=True):
        error = float((found[name] - own[name] - value).square().sum())
        assert error == pytest.approx(float((values[rank:] ** 2).sum()), rel=1e-3, abs=1e-6)
    assert torch.equal(found["unet.conv_in.bias"], own["unet.conv_in.bias"])


def test_a_change_that_happens_to_be_low_rank_takes_no_more_ranks(tmp_path: Path) -> None:
    model = tiny_model()
    factors = low_rank(model).low_rank
    own = state(model)
    whole = Erasure({name: own[name] + (up @ down).view(own[name].shape) for name, (up, down) in factors.items()})
    fit = export_kohya_lora(model, whole, tmp_path / KOHYA_LORA)
    assert fit.rank < 8 and fit.relative_error < 1e-5 and not fit.omissions


def test_a_parameter_that_did_not_change_takes_no_factors(tmp_path: Path) -> None:
    model = tiny_model()
    own = state(model)
    fit = export_kohya_lora(model, Erasure({KEY: own[KEY], OUT: own[OUT] + 1}), tmp_path / KOHYA_LORA)
    assert fit.rank == 1 and {key.split(".")[0] for key in load_file(tmp_path / KOHYA_LORA)} == {
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"
    }


def test_what_cannot_be_a_kohya_lora(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(EraseBenchError, match=r"a LoRA cannot change unet\.conv_in\.bias; export .* single-file"):
        export_kohya_lora(model, Erasure({"unet.conv_in.bias": torch.zeros(8)}), tmp_path / KOHYA_LORA)
    with pytest.raises(EraseBenchError, match="changes nothing"):
        export_kohya_lora(model, Erasure({KEY: state(model)[KEY]}), tmp_path / KOHYA_LORA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", [export_single_file, export_kohya_lora])
def test_a_rule_of_guidance_is_in_no_file(export: Any, tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(EraseBenchError, match=r"is a rule of guidance \(classifier-free\)"):
        export(model, Erasure(guidance=ClassifierFreeGuidance("church")), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_single_file_is_read_back_as_the_same_erasure(model: DiffusionModel, tmp_path: Path) -> None:
    for kind in (full, low_rank):
        erasure = kind(model)
        export_single_file(model, erasure, tmp_path / "a.safetensors")
        read = Checkpoint(str(tmp_path / "a.safetensors")).erase(model, [concept("church")], erase_context())
        assert set(read.weights) == {*erasure.weights, *erasure.low_rank}
        with model.erased(erasure):
            wanted = state(model)
        with model.erased(read):
            assert differing(wanted, state(model)) == set()


def test_a_pipeline_of_a_single_file_brings_its_tokenizers(model: DiffusionModel, tmp_path: Path) -> None:
    export_pipeline(model, full(model), None, tmp_path / "diffusers")
    read = stock(tmp_path / "diffusers")
    for name in model.family.tokenizers:
        files = {path.name for path in (tmp_path / "diffusers" / name).iterdir()}
        assert files >= {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
        ids = (padded_ids(getattr(one, name), PROMPTS) for one in (read, model))
        assert torch.equal(*ids)
