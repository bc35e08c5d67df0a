"""The model against the stock pipeline and against formulas, and erasures that come and go without a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, UNet2DModel
from PIL import Image
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.memory import DECODED_AT_ONCE
from erasebench.models.diffusion import ENCODED, DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, differing, exact_model, state, tiny_model, tiny_pipeline

LAYOUTS: tuple[Layout, ...] = ("sd1", "sd2")
TEXTS = ["a church", "", "a dog and a church, art", "a church"]
ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    value: Layout = request.param
    return value


def test_sizes_are_read_from_the_parts(layout: Layout) -> None:
    model = tiny_model(layout)
    assert (model.latent_shape, model.scale_factor) == ((4, 8, 8), 2)


@torch.no_grad()
def test_text_is_encoded_as_the_stock_pipeline_does(layout: Layout) -> None:
    pipeline = stock_pipeline(layout)
    wanted = torch.cat([pipeline.encode_prompt(text, "cpu", 1, False)[0] for text in TEXTS])
    found = DiffusionModel(pipeline).embed(TEXTS).embeddings
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_equal_texts_are_encoded_once_and_long_lists_in_chunks() -> None:
    model = tiny_model()
    sizes: list[int] = []
    model.text_encoder.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    texts = [f"dog {k % 70}" for k in range(140)]
    found = model.embed(texts).embeddings
    assert sizes == [64, 6]
    assert torch.equal(found[:70], found[70:])


@torch.no_grad()
def test_a_text_that_is_too_long_is_cut_as_the_stock_pipeline_cuts_it() -> None:
    pipeline = stock_pipeline()
    text = "dog " * 200
    found = DiffusionModel(pipeline).embed([text]).embeddings
    torch.testing.assert_close(found, pipeline.encode_prompt(text, "cpu", 1, False)[0])


def test_gradients_flow_through_the_text_encoder_where_they_are_asked_for() -> None:
    model = tiny_model()
    assert not model.embed(["dog"]).embeddings.requires_grad
    model.text_encoder.requires_grad_(True)
    assert model.embed(["dog"]).embeddings.requires_grad


@torch.no_grad()
def test_ids_of_texts_are_embedded_as_the_texts(layout: Layout) -> None:
    model = tiny_model(layout)
    texts = [*TEXTS, *(f"dog {k}" for k in range(70))]
    found, wanted = model.embed_ids(model.token_ids(texts)).embeddings, model.embed(texts).embeddings
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.embed_ids(model.token_ids(["church"])).embeddings, model.embed(["church"]).embeddings)


@torch.no_grad()
def test_no_texts_are_an_empty_conditioning() -> None:
    model = tiny_model()
    assert model.embed([]).embeddings.shape == (0, *model.embed(["dog"]).embeddings.shape[1:])


@torch.no_grad()
def test_vectors_of_words_stand_for_the_words(layout: Layout) -> None:
    model = tiny_model(layout)
    table = model.token_embeddings
    wanted = model.embed(["church art", "art dog"]).embeddings
    # Start, "dog", "dog", end: the words of positions 1 and 2 are to become other ones.
    ids = model.token_ids(["dog dog"] * 2)
    words = model.tokenizer(["church art", "art dog"], add_special_tokens=False).input_ids
    vectors = table[torch.tensor(words)]
    torch.testing.assert_close(model.embed_vectors(ids, vectors, [1, 2]).embeddings, wanted)
    # Slots of each prompt's own, in any order.
    slots, swapped = torch.tensor([[1, 2], [2, 1]]), torch.stack([vectors[0], vectors[1].flip(0)])
    torch.testing.assert_close(model.embed_vectors(ids, swapped, slots).embeddings, wanted)
    same = model.embed_vectors(ids, vectors[0], [1, 2]).embeddings
    torch.testing.assert_close(same, wanted[:1].expand(2, -1, -1))
    # The next prompt knows nothing of it.
    assert torch.equal(model.embed(["dog dog"]).embeddings, tiny_model(layout).embed(["dog dog"]).embeddings)
    assert not model.text_encoder.get_input_embeddings()._forward_hooks


def test_gradients_of_vectors_reach_their_slots_alone(layout: Layout) -> None:
    """Against central differences in the vectors, and in every row of the whole table of token embeddings."""
    model, rng = exact_model(layout), torch.Generator().manual_seed(0)
    table, ids = model.token_embeddings, model.token_ids(["dog church art", "a dog"])
    vectors = table.new_empty(2, 2, table.shape[1]).normal_(generator=rng).requires_grad_()
    slots = torch.tensor([[1, 3], [2, 1]])
    weight = torch.randn(2, 77, table.shape[1], generator=rng, dtype=torch.float64)

    def value(given: Tensor) -> Tensor:
        return (model.embed_vectors(ids, given, slots).embeddings * weight).sum()

    (gradient,) = torch.autograd.grad(value(vectors), vectors)
    with torch.no_grad():
        for place in [(0, 0, 1), (0, 1, 5), (1, 0, 0), (1, 1, 7)]:
            step = torch.zeros_like(vectors)
            step[place] = 1e-6
            difference = (value(vectors + step) - value(vectors - step)) / 2e-6
            assert float(gradient[place]) == pytest.approx(float(difference), rel=1e-5)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters().values())
    # What stood in the slots has no part in it: its gradient is zero, where that of the other tokens is not.
    table.requires_grad_()
    (of_table,) = torch.autograd.grad(value(vectors), table)
    table.requires_grad_(False)
    reached = set(of_table.any(1).nonzero().flatten().tolist())
    kept = {int(ids[row, k]) for row in range(2) for k in range(77) if k not in slots[row].tolist()}
    assert reached == kept
    replaced = {int(ids[0, 1]), int(ids[0, 3])}
    assert replaced - kept and not replaced - kept & reached


def test_a_prompt_has_no_gradient_to_another_prompts_vectors() -> None:
    model = exact_model()
    vectors = torch.randn(2, 1, 16, dtype=torch.float64, requires_grad=True)
    found = model.embed_vectors(model.token_ids(["dog", "dog"]), vectors, [1])
    (gradient,) = torch.autograd.grad(found[0].embeddings.square().sum(), vectors)
    assert gradient[0].any() and not gradient[1].any()


@pytest.mark.parametrize(("shape", "slots"), [((2, 3, 16), [1, 2]), ((2, 15), [1, 2]), ((16,), [1])])
def test_vectors_that_do_not_fit_their_slots(shape: tuple[int, ...], slots: list[int]) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"vectors of shape \[.*\] for \d slots"):
        model.embed_vectors(model.token_ids(["dog dog"] * 2), torch.zeros(shape), slots)


def test_latents_become_as_noisy_as_their_timesteps() -> None:
    model = tiny_model()
    latents, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    scheduler = tiny_pipeline().scheduler
    torch.testing.assert_close(model.add_noise(latents, noise, t), scheduler.add_noise(latents, noise, t))
    assert model.timestep_count == 1000
    assert torch.equal(model.signal(t), scheduler.alphas_cumprod[t].view(3, 1, 1, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "scaled_linear"},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "linear", "trained_betas": [0.1] * 20},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
    ],
)
def test_the_noise_schedule_is_the_schedulers_own(options: dict[str, Any]) -> None:
    parts = tiny_pipeline()
    parts.scheduler = DDIMScheduler(num_train_timesteps=20, beta_start=0.001, beta_end=0.02, **options)
    assert torch.equal(DiffusionModel(parts).alphas_cumprod, parts.scheduler.alphas_cumprod)


def test_the_noise_schedule_does_not_depend_on_the_kind_of_scheduler() -> None:
    parts = tiny_pipeline()
    parts.scheduler = PNDMScheduler.from_config(parts.scheduler.config)
    assert torch.equal(DiffusionModel(parts).alphas_cumprod, tiny_model().alphas_cumprod)


@torch.no_grad()
def test_a_v_prediction_becomes_noise() -> None:
    model = tiny_model("sd2")
    alphas = tiny_pipeline("sd2").scheduler.alphas_cumprod
    x, t = torch.randn(3, *model.latent_shape), torch.tensor([0, 400, 999])
    text = model.embed(["dog", "church", ""])
    v = model.predict(x, t, text)
    signal, noise = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas[t], 1 - alphas[t]))
    # Another way than the code's: what picture does v speak of, and what noise turns it into x?
    x0 = signal * x - noise * v
    wanted = (x - signal * x0) / noise
    torch.testing.assert_close(model.predict_noise(x, t, text), wanted, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_noise_prediction_stays_as_it_is() -> None:
    model = tiny_model("sd1")
    x, t, text = torch.randn(2, *model.latent_shape), torch.tensor([1, 999]), model.embed(["dog", ""])
    wanted = model.unet(x, t, encoder_hidden_states=text.embeddings).sample
    assert torch.equal(model.predict_noise(x, t, text), wanted)


@torch.no_grad()
def test_pictures_are_decoded_as_the_stock_pipeline_does(layout: Layout) -> None:
    pipeline = stock_pipeline(layout)
    latents = 3 * torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    wanted = np.stack([np.asarray(picture) for picture in pipeline.image_processor.postprocess(pixels)])
    found = DiffusionModel(pipeline).decode(latents)
    assert found.dtype == np.uint8 and found.shape == (5, 16, 16, 3)
    # Libraries round in the last place as memory happens to be aligned.
    apart = np.abs(found.astype(int) - wanted)
    assert apart.max() <= 1 and (apart > 0).mean() < 0.001
    assert found.min() == 0 or found.max() == 255 or np.ptp(found) > 20


@torch.no_grad()
def test_images_are_encoded_as_the_stock_pipeline_does(layout: Layout) -> None:
    pipeline = stock_pipeline(layout)
    images = np.random.default_rng(0).integers(0, 256, (DECODED_AT_ONCE + 3, 16, 16, 3), dtype=np.uint8)
    pixels = pipeline.image_processor.preprocess([Image.fromarray(image) for image in images])
    wanted = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    found = DiffusionModel(pipeline).encode_images(images)
    assert found.shape == (DECODED_AT_ONCE + 3, 4, 8, 8) and not found.requires_grad
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_last_images_are_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    sets = np.random.default_rng(0).integers(0, 256, (ENCODED + 1, 2, 16, 16, 3), dtype=np.uint8)
    first = [model.encode_images(images) for images in sets]
    assert not torch.equal(first[0], first[1])
    wanted = [latents.clone() for latents in first]
    first[-1] += 1  # of the caller's own
    again = model.encode_images(sets[0])  # the oldest, which has made room
    with monkeypatch.context() as patch:
        patch.setattr(model.vae, "encode", lambda *_: pytest.fail("they were encoded again"))
        kept = [model.encode_images(images) for images in sets[2:]]
        assert torch.equal(model.encode_images(sets[0].copy()), again)
        with pytest.raises(pytest.fail.Exception, match="encoded again"):
            model.encode_images(sets[1])
        with pytest.raises(pytest.fail.Exception, match="encoded again"):
            model.encode_images(sets[0].reshape(2, 16, 8, 6))
    assert torch.equal(again, wanted[0]) and all(map(torch.equal, kept, wanted[2:]))


@torch.no_grad()
def test_more_pictures_are_decoded_than_fit_in_one_pass() -> None:
    model = tiny_model()
    latents = torch.randn(2 * DECODED_AT_ONCE + 3, *model.latent_shape)
    one_by_one = np.concatenate([model.decode(latent[None]) for latent in latents])
    assert np.abs(model.decode(latents).astype(int) - one_by_one).max() <= 1


def test_mixed_precision_keeps_the_weights_and_gives_float32() -> None:
    model = DiffusionModel(tiny_pipeline(), dtype=torch.bfloat16)
    exact = tiny_model()
    x, t = torch.randn(2, *model.latent_shape), torch.tensor([1, 999])
    text = exact.embed(["dog", ""])
    found = model.predict_noise(x, t, text)
    assert found.dtype == model.embed(["dog"]).embeddings.dtype == torch.float32
    assert differing(state(model), state(exact)) == set()
    torch.testing.assert_close(found, exact.predict_noise(x, t, text), rtol=0.1, atol=0.1)


def test_a_model_without_cross_attention() -> None:
    parts = tiny_pipeline()
    parts.unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
    )
    with pytest.raises(EraseBenchError, match="no cross-attention"):
        DiffusionModel(parts)


def test_a_model_that_predicts_the_picture() -> None:
    parts = tiny_pipeline()
    parts.scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(EraseBenchError, match="prediction type 'sample'; known: epsilon, v_prediction"):
        DiffusionModel(parts)


def test_full_weights_take_the_place_of_the_models_own() -> None:
    model = tiny_model()
    before = state(model)
    bias = next(name for name in before if name.endswith("final_layer_norm.bias"))
    names = (ATTENTION, bias, "unet.conv_in.weight")
    change = {name: before[name] + 1 for name in names}
    with model.erased(Erasure(change)) as erased:
        assert erased is model
        assert differing(before, state(model)) == set(names)
        assert all(torch.equal(state(model)[name], value) for name, value in change.items())
    assert differing(before, state(model)) == set()


def test_low_rank_changes_are_added() -> None:
    model = tiny_model()
    before = state(model)
    linear, conv = before[ATTENTION], before["unet.conv_in.weight"]
    factors = {
        ATTENTION: (torch.randn(linear.shape[0], 2), torch.randn(2, linear.shape[1])),
        "unet.conv_in.weight": (torch.randn(conv.shape[0], 3), torch.randn(3, conv[0].numel())),
    }
    with model.erased(Erasure(low_rank=factors)):
        found = state(model)
        assert differing(before, found) == set(factors)
    up, down = factors[ATTENTION]
    torch.testing.assert_close(found[ATTENTION], linear + up @ down)
    up, down = factors["unet.conv_in.weight"]
    wanted = conv + torch.einsum("or,rihw->oihw", up, down.view(3, *conv.shape[1:]))
    torch.testing.assert_close(found["unet.conv_in.weight"], wanted)
    assert differing(before, state(model)) == set()


def test_a_parameter_may_have_full_and_low_rank_changes() -> None:
    model = tiny_model()
    before = state(model)
    rows, columns = before[ATTENTION].shape
    up, down = torch.ones(rows, 1), torch.ones(1, columns)
    with model.erased(Erasure({ATTENTION: torch.zeros(rows, columns)}, {ATTENTION: (up, down)})):
        assert torch.equal(state(model)[ATTENTION], torch.ones(rows, columns))
    assert differing(before, state(model)) == set()


def test_guidance_comes_and_goes() -> None:
    model = tiny_model()
    rule = ClassifierFreeGuidance(negative="a dog")
    with model.erased(Erasure(guidance=rule)):
        assert model.guidance == rule
        with model.erased(Erasure()):
            assert model.guidance == rule
    assert model.guidance == ClassifierFreeGuidance()


def test_the_model_is_restored_after_an_exception() -> None:
    model = tiny_model()
    before = state(model)
    change = Erasure({ATTENTION: before[ATTENTION] * torch.nan}, guidance=ClassifierFreeGuidance("a dog"))
    with pytest.raises(KeyboardInterrupt), model.erased(change):
        raise KeyboardInterrupt
    assert differing(before, state(model)) == set()
    assert model.guidance == ClassifierFreeGuidance()


def test_erasures_nest() -> None:
    model = tiny_model()
    before = state(model)
    with model.erased(Erasure({ATTENTION: before[ATTENTION] + 1})):
        outer = state(model)
        with model.erased(Erasure({ATTENTION: before[ATTENTION] + 2, "unet.conv_in.bias": torch.ones(8)})):
            assert differing(outer, state(model)) == {ATTENTION, "unet.conv_in.bias"}
        assert differing(outer, state(model)) == set()
    assert differing(before, state(model)) == set()


@pytest.mark.parametrize(
    ("erasure", "message"),
    [
        (Erasure({"unet.nothing": torch.zeros(1)}), "changes unet.nothing, which the model does not have"),
        (Erasure({"vae.quant_conv.bias": torch.zeros(8)}), "changes vae.quant_conv.bias, which"),
        (Erasure({"unet.conv_in.bias": torch.zeros(9)}), r"unet.conv_in.bias has shape \[9\], the model's \[8\]"),
        (Erasure(low_rank={"unet.nothing": (torch.zeros(8, 1), torch.zeros(1, 8))}), "changes unet.nothing, which"),
        (
            Erasure(low_rank={"unet.conv_in.weight": (torch.zeros(8, 1), torch.zeros(1, 35))}),
            r"unet.conv_in.weight has shape \[8, 35\], the model's \[8, 4, 3, 3\]",
        ),
        (
            Erasure(low_rank={"unet.conv_in.weight": (torch.zeros(7, 1), torch.zeros(1, 36))}),
            r"unet.conv_in.weight has shape \[7, 36\], the model's \[8, 4, 3, 3\]",
        ),
        (
            Erasure(low_rank={"unet.conv_in.weight": (torch.zeros(8), torch.zeros(1, 36))}),
            r"unet.conv_in.weight have shapes \[8\] and \[1, 36\]: no product",
        ),
        (
            Erasure(low_rank={"unet.conv_in.weight": (torch.zeros(8, 2), torch.zeros(1, 36))}),
            r"unet.conv_in.weight have shapes \[8, 2\] and \[1, 36\]: no product",
        ),
    ],
)
def test_an_erasure_that_does_not_fit_changes_nothing(erasure: Erasure, message: str) -> None:
    model = tiny_model()
    before = state(model)
    with pytest.raises(EraseBenchError, match=message), model.erased(erasure):
        raise AssertionError("the block must not run")
    assert differing(before, state(model)) == set()
