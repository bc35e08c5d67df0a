"""FMN's loss and token positions by hand, its textual inversion, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.methods import forget_me_not
from erasebench.methods.forget_me_not import (
    ForgetMeNot,
    concept_positions,
    pulled,
    resteering_loss,
)
from erasebench.models.conditioning import Conditioning
from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS
from erasebench.training import inversion
from erasebench.training.attention import cross_attention_maps
from erasebench.training.latents import noisy
from erasebench.training.parameters import select_parameters
from erasebench.training.trace import Trace
from tests.marks import first_quick
from tests.tiny import Layout, concept, differing, erase_context, state, tiny_model

CHURCH = concept("church")
LAYOUTS = get_args(Layout)


def quick(**settings: Any) -> ForgetMeNot:
    small = {"steps": 2, "inversion_steps": 2, "pictures": 2, "sampling_steps": 2, "learning_rate": 1e-3}
    return ForgetMeNot(**{**small, **settings})


def test_loss_is_one_norm_over_all_attention_to_the_concept() -> None:
    rng = torch.Generator().manual_seed(0)
    maps = [torch.rand(shape, generator=rng) for shape in ((2, 3, 4, 6), (2, 1, 9, 6))]
    mask = torch.tensor([[False, True, True, False, False, False], [False, False, False, True, False, True]])
    total = 0.0
    for probabilities in maps:
        for picture, head, pixel, token in torch.cartesian_prod(*map(torch.arange, probabilities.shape)):
            if mask[picture, token]:
                total += float(probabilities[picture, head, pixel, token]) ** 2
    assert float(resteering_loss(maps, mask)) == pytest.approx(math.sqrt(total), rel=1e-5)


@pytest.mark.parametrize("use_pooler", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooler_is_one_token_where_padding_is_not_eos(layout: Layout, use_pooler: bool) -> None:
    """'a photo of church' is start, 8 tokens, church at 9, EOS at 10, and padding."""
    mask = concept_positions(tiny_model(layout), "a photo of church", "church", use_pooler)
    wanted = {9} | (set([10] if layout == "sd2" else range(10, 77)) if use_pooler else set())
    assert set(mask[0].nonzero().flatten().tolist()) == wanted
    assert mask.shape == (1, 77)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_loss_is_that_of_the_unerased_attention(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = tiny_model(layout), list[Mapping[str, float]]()
    seen = record_noise(monkeypatch)
    style = concept("art", kind="style")
    quick(textual_inversion=False, batch_size=2, steps=1).erase(model, [style], erase_context(steps=steps))
    (x, t, _), *_ = seen
    with torch.no_grad(), cross_attention_maps(model.unet) as maps:
        model.predict(x, t, model.embed(["a photo in the style of art"] * 2))
    # Start and 'a photo in the style of' are 1 + 1 + 5 + 2 + 3 + 5 + 2 tokens.
    first, last = 19, 21 if layout == "sd2" else 77
    expected = math.sqrt(sum(float(m[..., first:last].double().pow(2).sum()) for m in maps))
    assert steps == [{"done": 1, "total": 1, "loss": pytest.approx(expected, rel=1e-4)}]


def record_noise(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Tensor]]:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def recorded(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(noisy(*args))
        return seen[-1]

    monkeypatch.setattr(forget_me_not, "noisy", recorded)
    monkeypatch.setattr(inversion, "noisy", recorded)
    return seen


@pytest.mark.parametrize("parameters", first_quick(["full", "xattn"]))
@pytest.mark.parametrize("layout", first_quick(LAYOUTS))
def test_training_lowers_the_attention(layout: Layout, parameters: Any) -> None:
    settings = {"parameters": parameters, "steps": 12, "batch_size": 4, "learning_rate": 5e-3}
    method = quick(textual_inversion=False, use_pooler=False, **settings)
    losses = [row["loss"] for row in method.erase(tiny_model(layout), [CHURCH], erase_context()).trace]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("parameters", ["full", "xattn"])
def test_only_what_reaches_the_attention_changes_and_the_model_is_left_as_it_was(parameters: Any) -> None:
    model = tiny_model()
    before = state(model)
    erasure = quick(parameters=parameters).erase(model, [CHURCH], erase_context())
    assert not differing(before, state(model))
    assert not any(parameter.requires_grad for parameter in model.parameters().values())
    chosen = {f"unet.{name}" for name in select_parameters(model.unet, parameters)}
    assert set(erasure.weights) < chosen
    # Nothing after the last probabilities has a part in them.
    last = "unet.up_blocks.1.attentions.1.transformer_blocks.0"
    assert f"{last}.attn2.to_k.weight" in erasure.weights
    assert f"{last}.attn2.to_v.weight" not in erasure.weights
    assert f"{last}.ff.net.2.weight" not in erasure.weights
    assert "unet.conv_out.weight" not in erasure.weights
    assert ("unet.conv_in.weight" in erasure.weights) == (parameters == "full")
    with model.erased(erasure):
        assert differing(before, state(model)) == set(erasure.weights)


@pytest.mark.parametrize("inversion", [False, True])
def test_the_seed_decides_everything(inversion: bool) -> None:
    concepts, method = [CHURCH, concept("dog")], quick(textual_inversion=inversion, steps=1)
    model, random = tiny_model(), torch.random.get_rng_state()
    first, again, other = (method.erase(model, concepts, erase_context(seed=seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not differing(first.weights, again.weights)
    assert first.trace == again.trace
    assert differing(first.weights, other.weights)


def test_several_concepts_have_their_own_pictures_and_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, masks = tiny_model("sd2"), set[tuple[int, ...]]()

    def recorded(maps: list[Tensor], mask: Tensor) -> Tensor:
        masks.update(tuple(row.nonzero().flatten().tolist()) for row in mask)
        loss: Tensor = resteering_loss(maps, mask)
        return loss

    monkeypatch.setattr(forget_me_not, "resteering_loss", recorded)
    concepts = [CHURCH, concept("art", kind="style"), concept("nudity")]
    quick(textual_inversion=False, steps=4, batch_size=4).erase(model, concepts, erase_context())
    assert masks == {(9, 10), (19, 20), (9, 10, 11, 12, 13, 14, 15)}


@pytest.mark.parametrize("inverted", [False, True])
def test_each_picture_goes_with_text_and_positions_of_its_own_concept(
    inverted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first losses of two concepts, of pictures whose shade tells which prompt they were drawn for."""
    model, seen, names = tiny_model(), list[tuple[Tensor, ...]](), ["church", "art"]
    for name, parameter in model.unet.named_parameters():
        if ".attn2.to_q." in name:
            # Attention that depends on the picture.
            parameter.data *= 30

    def draw(_: Any, prompts: list[str], *__: Any) -> Tensor:
        shades = [names.index(prompt.split()[-1]) for prompt in prompts]
        return torch.tensor(shades).view(-1, 1, 1, 1).expand(-1, 4, 8, 8).float()

    def recorded(model: Any, latents: Tensor, rng: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, t, noise = noisy(model, latents, rng)
        seen.append((latents, x, t, noise))
        return x, t, noise

    monkeypatch.setattr(forget_me_not, "training_latents", draw)
    monkeypatch.setattr(forget_me_not, "noisy", recorded)
    monkeypatch.setattr(inversion, "noisy", recorded)
    # So slow that inverted tokens stay where they start.
    method = quick(textual_inversion=inverted, inversion_learning_rate=1e-9, use_pooler=False, steps=1, batch_size=8)
    erasure = method.erase(model, [CHURCH, concept("art", kind="style")], erase_context())

    def text_of(name: str) -> Conditioning:
        before, first = {"church": ("a photo of ", 9), "art": ("a photo in the style of ", 19)}[name]
        if not inverted:
            return model.embed([before + name])
        ids = model.token_ids([before + "dog dog dog dog"])
        return model.embed_vectors(ids, erasure.record[name], range(first, first + 4))

    *inversions, (latents, x, t, _) = seen
    assert len(inversions) == (4 if inverted else 0)
    for step, (shade, z, s, noise) in enumerate(inversions):
        name = names[step // 2]
        assert names[int(shade.mean())] == name
        (token,) = model.tokenizer(name, add_special_tokens=False).input_ids
        start = model.text_encoder.get_input_embeddings().weight[token]
        torch.testing.assert_close(erasure.record[name][0], start.detach(), rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            expected = functional.mse_loss(model.predict_noise(z, s, text_of(name)), noise)
        assert erasure.trace[step]["loss"] == pytest.approx(float(expected), rel=1e-4)

    shown = [names[int(shade.mean())] for shade in latents]
    assert set(shown) == set(names)
    total = 0.0
    for row, name in enumerate(shown):
        # Start and 'a photo of' are 1 + 1 + 5 + 2 tokens; 'in the style of' are 2 + 3 + 5 + 2.
        first, count = {"church": 9, "art": 19}[name], 4 if inverted else 1
        with torch.no_grad(), cross_attention_maps(model.unet) as maps:
            model.predict(x[row : row + 1], t[row : row + 1], text_of(name))
        total += sum(float(m[..., first : first + count].double().pow(2).sum()) for m in maps)
    assert erasure.trace[-1]["loss"] == pytest.approx(math.sqrt(total), rel=1e-4)


@pytest.mark.parametrize(("clip", "decay"), [(1e-6, 0.0), (1e6, 0.5)])
def test_first_step_is_adamws_of_the_clipped_gradient_by_hand(
    clip: float, decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = tiny_model(), record_noise(monkeypatch)
    method = quick(
        parameters="xattn", textual_inversion=False, steps=1, gradient_clip=clip, weight_decay=decay, use_pooler=False
    )
    erasure = method.erase(model, [CHURCH], erase_context())
    ((x, t, _),) = seen
    trained = {f"unet.{n}": p.requires_grad_() for n, p in select_parameters(model.unet, "xattn").items()}
    with cross_attention_maps(model.unet) as maps:
        model.predict(x, t, model.embed(["a photo of church"]))
    loss = torch.cat([m[..., 9].flatten() for m in maps]).norm()
    gradients = torch.autograd.grad(loss, [trained[name] for name in erasure.weights])
    norm = math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in gradients))
    assert 1e-6 < norm < 1e6
    for name, gradient in zip(erasure.weights, gradients, strict=True):
        # Adam's first step is the learning rate in the gradient's direction, and less where it is about epsilon.
        step = gradient * min(1.0, clip / norm)
        wanted = trained[name].detach() * (1 - 1e-3 * decay) - 1e-3 * step / (step.abs() + 1e-8)
        torch.testing.assert_close(erasure.weights[name], wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_inversion_step_is_adamws_by_hand(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(layout), record_noise(monkeypatch)
    before = state(model)
    method = quick(inversion_steps=1, inversion_learning_rate=2e-3, inversion_weight_decay=0.5)
    trace = Trace(erase_context(), 1)
    latents = torch.randn(3, 4, 8, 8)
    found = method.invert(model, concept("dog art"), latents, trace, torch.Generator().manual_seed(4))
    embedding = model.token_embeddings.detach()
    ids = model.tokenizer("dog art", add_special_tokens=False).input_ids
    rest = torch.randn((2, embedding.shape[1]), generator=torch.Generator().manual_seed(4))
    start = torch.cat([embedding[ids], rest]).requires_grad_()
    (x, t, noise), *_ = seen
    # Start and 'a photo of' are 1 + 1 + 5 + 2 tokens.
    text = model.embed_vectors(model.token_ids(["a photo of dog dog dog dog"]), start, range(9, 13))
    loss = functional.mse_loss(model.predict_noise(x, t, text), noise)
    (gradient,) = torch.autograd.grad(loss, start)
    # Adam's first step is the learning rate in the direction of the sign; AdamW decays before it.
    stepped = start.detach() * (1 - 2e-3 * 0.5) - 2e-3 * gradient / (gradient.abs() + 1e-8)
    lengths = stepped.pow(2).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(found, stepped / lengths * (0.8 * lengths + 0.2 * 0.4), rtol=1e-3, atol=1e-5)
    assert trace.rows == [{"step": 1.0, "loss": pytest.approx(loss.item(), rel=1e-4), "stage": "inversion"}]
    assert not differing(before, state(model))


def test_norms_are_pulled_and_directions_stay() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.1]])
    torch.testing.assert_close(pulled(vectors, 0.5), torch.tensor([[0.6 * 2.7, 0.8 * 2.7], [0.0, 0.25]]))
    torch.testing.assert_close(pulled(vectors, 1.0).norm(dim=1), torch.tensor([0.4, 0.4]))


def test_inversion_takes_the_place_of_the_concepts_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, masks = tiny_model("sd2"), list[Tensor]()

    def recorded(maps: list[Tensor], mask: Tensor) -> Tensor:
        masks.append(mask)
        loss: Tensor = resteering_loss(maps, mask)
        return loss

    monkeypatch.setattr(forget_me_not, "resteering_loss", recorded)
    concepts = [CHURCH, concept("nudity")]
    erasure = quick(inversion_steps=3).erase(model, concepts, erase_context())
    assert [row["stage"] for row in erasure.trace] == ["inversion"] * 6 + ["attention"] * 2
    assert {name: tensor.shape for name, tensor in erasure.record.items()} == dict.fromkeys(
        ["church", "nudity"], (4, 24)
    )
    assert all(mask[0].nonzero().flatten().tolist() == [9, 10, 11, 12, 13] for mask in masks)


def test_divergence_is_an_error_and_restores_the_model() -> None:
    model = tiny_model()
    before, processors = state(model), model.unet.attn_processors
    with pytest.raises(FloatingPointError, match=r"training diverged: the loss is (nan|inf) at step \d"):
        quick(learning_rate=1e30, steps=5, textual_inversion=False).erase(model, [CHURCH], erase_context())
    assert not differing(before, state(model))
    assert model.unet.attn_processors == processors
    assert not model.text_encoder.get_input_embeddings()._forward_hooks


def test_a_phrase_without_tokens_is_named() -> None:
    with pytest.raises(EraseBenchError, match=r"'x{80}' has no tokens among those that the text encoder reads"):
        quick(textual_inversion=False).erase(tiny_model(), [concept("x" * 80)], erase_context())


def test_defaults_are_the_official_ones() -> None:
    plugin = METHODS.get("fmn")
    method: Any = plugin.make(**plugin.presets)
    assert (method.parameters, method.steps, method.learning_rate, method.batch_size) == ("full", 35, 2e-6, 1)
    assert (method.weight_decay, method.gradient_clip) == (0.01, 1.0)
    assert method.use_pooler and method.textual_inversion
    assert (method.inversion_steps, method.inversion_learning_rate, method.inversion_weight_decay) == (500, 1e-3, 0.1)


def test_results_can_be_stored(tmp_path: Any) -> None:
    erasure = quick().erase(tiny_model(), [CHURCH], erase_context())
    erasure.save(tmp_path)
    loaded = Erasure.load(tmp_path)
    assert not differing(erasure.weights, loaded.weights)
    assert not differing(erasure.record, loaded.record)
    assert loaded.trace == erasure.trace


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"pictures": 0}, "pictures: Input should be greater than or equal to 1, not 0"),
        (
            {"inversion_weight_decay": -0.1},
            "inversion_weight_decay: Input should be greater than or equal to 0, not -0.1",
        ),
        ({"parameters": "noxattn"}, "parameters: Input should be 'full' or 'xattn'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(ForgetMeNot, settings)
