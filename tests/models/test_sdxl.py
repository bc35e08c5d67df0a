"""Stable Diffusion XL against the stock pipeline of diffusers, and what its second text encoder adds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from erasebench.errors import EraseBenchError
from erasebench.models.conditioning import Conditioning
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.models.sdxl import StableDiffusionXL
from erasebench.models.shared_passes import shared_passes
from erasebench.sampling import Sampler, sample
from tests.marks import first_quick
from tests.models.stock import stock_pipeline
from tests.test_sampling import PROMPTS, SEEDS, assert_same_pictures, stock_images
from tests.tiny import LENGTH, exact_model, tiny_model, tiny_pipeline

LONG = "a church and a dog, art " * 12
"""More tokens than are read."""


@pytest.fixture(scope="module")
def model() -> StableDiffusionXL:
    made = tiny_model("sdxl")
    assert isinstance(made, StableDiffusionXL)
    return made


@torch.no_grad()
def test_prompts_are_embedded_as_by_the_stock_pipeline(model: StableDiffusionXL) -> None:
    prompts = ["a church", "", LONG, "dog !", "art"]
    wanted, _, pooled, _ = stock_pipeline("sdxl").encode_prompt(prompts, do_classifier_free_guidance=False)
    embedded = model.embed([*prompts, "a church"])
    assert embedded.pooled is not None
    torch.testing.assert_close(embedded.embeddings, torch.cat([wanted, wanted[:1]]))
    torch.testing.assert_close(embedded.pooled, torch.cat([pooled, pooled[:1]]))
    assert embedded.embeddings.shape == (6, LENGTH, 48) and embedded.pooled.shape == (6, 32)


def test_nothing_is_embedded_as_no_rows(model: StableDiffusionXL) -> None:
    nothing = model.embed([])
    assert nothing.pooled is not None
    assert (nothing.embeddings.shape, nothing.pooled.shape) == ((0, LENGTH, 48), (0, 32))
    assert len(Conditioning.cat([nothing, model.embed(["art"])])) == 1


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_ids_are_padded_as_by_the_second_tokenizer(layout: Any) -> None:
    """Whatever token the first tokenizer pads with."""
    parts = tiny_pipeline("sdxl")
    parts.tokenizer = tiny_pipeline(layout).tokenizer
    model, texts = StableDiffusionXL(parts), ["a church", "", LONG, "wow", "."]
    wanted = parts.tokenizer_2(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    assert torch.equal(model.second_ids(model.token_ids(texts)), wanted.input_ids)


@pytest.mark.parametrize("zeros", [True, False])
@torch.no_grad()
def test_no_condition_is_that_of_the_stock_pipeline(zeros: bool) -> None:
    parts = tiny_pipeline("sdxl")
    parts.config["force_zeros_for_empty_prompt"] = zeros
    found = StableDiffusionXL(parts).embed_negative(["", "a dog"])
    pipeline = stock_pipeline("sdxl")
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    _, blank, _, blank_pooled = pipeline.encode_prompt("church")
    _, dog, _, dog_pooled = pipeline.encode_prompt("church", negative_prompt="a dog")
    assert found.pooled is not None
    torch.testing.assert_close(found.embeddings, torch.cat([blank, dog]))
    torch.testing.assert_close(found.pooled, torch.cat([blank_pooled, dog_pooled]))
    assert bool(found.embeddings[0].any()) != zeros


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler
@pytest.mark.parametrize("negative", ["", "a dog, art"])
@pytest.mark.parametrize(("name", "size"), first_quick([("euler", 24), ("ddim", None)]))
def test_pictures_are_those_of_the_stock_pipeline(negative: str, name: str, size: int | None) -> None:
    """With the scheduler of the published files, and its size conditions: those of the picture."""
    config = dict(tiny_pipeline("sdxl").scheduler.config)
    pipeline = stock_pipeline("sdxl", EulerDiscreteScheduler.from_config(config, timestep_spacing="leading"))
    sampler, parts = Sampler(name, 4, 4.0, size), stock_pipeline("sdxl")
    parts.scheduler = pipeline.scheduler
    side = size or 16
    with StableDiffusionXL(parts).erased(Erasure(guidance=ClassifierFreeGuidance(negative))) as model:
        found = sample(model, PROMPTS, SEEDS, sampler)
    options: dict[str, Any] = {"negative_prompt": [negative] * 3} if negative else {}
    wanted = stock_images(pipeline, sampler, height=side, width=side, **options)
    assert found.shape == (3, side, side, 3)
    assert_same_pictures(found, wanted)


@torch.no_grad()
def test_size_and_pooled_embedding_are_conditions(model: StableDiffusionXL) -> None:
    x, text = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), model.embed(["church"])
    assert text.pooled is not None
    whole = model.predict(x, 500, text)
    other = model.predict(x, 500, Conditioning(text.embeddings, text.pooled + 1))
    assert (whole - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match="needs a pooled embedding of each prompt"):
        model.predict(x, 500, Conditioning(text.embeddings))


@pytest.mark.parametrize("texts", [1, 3])
@torch.no_grad()
def test_shared_passes_predict_the_same(model: StableDiffusionXL, texts: int) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = model.embed([f"text {k}" for k in range(2 * texts)])
    expected = model.predict(torch.cat([latents] * texts), torch.tensor(500), text)
    with shared_passes(model.unet):
        found = model.predict(latents, torch.tensor(500), text)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0.01


@torch.no_grad()
def test_vectors_of_the_tokens_own_embed_as_the_tokens(model: StableDiffusionXL) -> None:
    """In every slot, so that the second text encoder's padding is right as well."""
    ids = model.token_ids(["a church", LONG, "art"])
    vectors = model.token_vectors(ids)
    assert vectors.shape == (3, LENGTH, model.token_embeddings.shape[1])
    found, wanted = model.embed_vectors(ids, vectors, range(LENGTH)), model.embed_ids(ids)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert found.pooled is not None and wanted.pooled is not None and torch.equal(found.pooled, wanted.pooled)
    church = model.tokenizer("church", add_special_tokens=False).input_ids
    put = model.embed_vectors(model.token_ids(["a dog"]), model.token_embeddings[church], [2])
    torch.testing.assert_close(put.embeddings, model.embed(["a church"]).embeddings)


def test_gradients_reach_vectors_by_both_text_encoders() -> None:
    """And by the pooled embedding: against finite differences."""
    exact = exact_model("sdxl")
    ids, rng = exact.token_ids(["a dog"]), torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 48, generator=rng, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 4, 8, 8, generator=rng, dtype=torch.float64)

    def loss(vectors: torch.Tensor) -> torch.Tensor:
        return exact.predict(x, 300, exact.embed_vectors(ids, vectors, [2])).square().sum()

    (gradient,) = torch.autograd.grad(loss(vectors), vectors)
    for place in (0, 20, 47):
        step = torch.zeros(1, 48, dtype=torch.float64)
        step[0, place] = 1e-5
        with torch.no_grad():
            slope = (loss(vectors + step) - loss(vectors - step)) / 2e-5
        torch.testing.assert_close(gradient[0, place], slope, rtol=1e-5, atol=1e-8)
        assert gradient[0, place] != 0


def test_parameters_of_both_text_encoders_can_be_erased(model: StableDiffusionXL) -> None:
    names = {name.partition(".")[0] for name in model.parameters()}
    assert names == {"unet", "text_encoder", "text_encoder_2"}
    name = next(name for name in model.parameters() if name.startswith("text_encoder_2.") and "layers.0" in name)
    before, changed = model.embed(["art"]), torch.full_like(model.parameters()[name], 0.5)
    with model.erased(Erasure({name: changed})):
        during = model.embed(["art"])
    after = model.embed(["art"])
    assert torch.equal(before.embeddings, after.embeddings)
    assert not torch.equal(before.embeddings[..., 16:], during.embeddings[..., 16:])
    assert torch.equal(before.embeddings[..., :16], during.embeddings[..., :16])


def test_pipelines_that_are_conditioned_on_something_else() -> None:
    parts = tiny_pipeline("sdxl")
    parts.tokenizer_2.add_tokens(["<new>"])
    with pytest.raises(EraseBenchError, match="two tokenizers have different vocabularies"):
        StableDiffusionXL(parts)
    parts = tiny_pipeline("sdxl")
    parts.unet.register_to_config(projection_class_embeddings_input_dim=7)
    with pytest.raises(EraseBenchError, match="is not conditioned on a pooled embedding and a size"):
        StableDiffusionXL(parts)
