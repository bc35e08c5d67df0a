"""The copy of a U-Net that is sampled with on GPUs, against the U-Net itself; here it is tried on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch._dynamo.utils import counters

from erasebench.models import sampling_unet
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.recordings import RECORDINGS, Build
from erasebench.models.sampling_unet import SamplingUnet
from erasebench.sampling import Sampler, sample, sample_latents
from erasebench.training.adapters import Adapters
from tests.marks import first_quick
from tests.tiny import Layout, differing, state, tiny_model, tiny_pipeline

STEP = torch.tensor(500)


def given(model: DiffusionModel, texts: int, images: int = 2) -> tuple[Tensor, Conditioning]:
    """Latents ``[images, ...]``, and embeddings of so many texts for each."""
    latents = torch.randn((images, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    return latents, model.embed([f"text {k}" for k in range(texts * images)])


def compiled_model(layout: Layout = "sd1") -> DiffusionModel:
    """One that samples with a copy; large batches are traced, but not turned into code, which takes a minute."""
    model = tiny_model(layout)
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
@pytest.mark.parametrize("texts", [1, 2, 3])
@torch.no_grad()
def test_predictions_are_those_of_the_unet(layout: Layout, texts: int) -> None:
    model = tiny_model(layout)
    latents, text = given(model, texts)
    expected = model.predict(torch.cat([latents] * texts), STEP, text)
    copied = SamplingUnet(model.unet, torch.float32)
    found = copied(latents, STEP, encoder_hidden_states=text.embeddings)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(copied(latents, 500, text.embeddings)[0], found)
    assert expected.std() > 0.01


@torch.no_grad()
def test_half_precision_is_as_close_as_autocast() -> None:
    model, mixed = tiny_model(), DiffusionModel(tiny_pipeline(), dtype=torch.bfloat16)
    latents, text = given(model, 1)
    exact = model.predict(latents, STEP, text)
    found = SamplingUnet(model.unet, torch.bfloat16)(latents, STEP, text.embeddings)[0]
    assert found.dtype == torch.bfloat16

    def error(predicted: Tensor) -> float:
        return float((predicted.float() - exact).norm() / exact.norm())

    assert 1e-4 < error(found) < 2 * error(mixed.predict(latents, STEP, text))


@torch.no_grad()
def test_weights_are_taken_over() -> None:
    model = tiny_model()
    latents, text = given(model, 1)
    copied = SamplingUnet(model.unet, torch.float32)
    before = copied(latents, STEP, text.embeddings)[0]
    for weight in model.unet.parameters():
        weight.mul_(1.2)
    assert torch.equal(copied(latents, STEP, text.embeddings)[0], before), "it is a copy"
    assert copied.refresh(model.unet)
    after = copied(latents, STEP, text.embeddings)[0]
    torch.testing.assert_close(after, model.predict(latents, STEP, text), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-2)


def check_sampling(layout: Layout, count: Callable[[], int]) -> None:
    """Sample with a copy and without, with the model's own weights and with others; it counts what was compiled."""
    model, compiled = tiny_model(layout), compiled_model(layout)
    before, unet = state(compiled), compiled.unet
    model.batch_sizes.drawn.rows = compiled.batch_sizes.drawn.rows = 10
    sampler, prompts, seeds = Sampler("ddim", 2), [f"a dog, {k}" for k in range(11)], range(11)
    weights = Erasure({"unet.conv_in.weight": model.unet.conv_in.weight * -1})
    graphs = [count()]
    for erasure in (Erasure(), weights):
        with model.erased(erasure), compiled.erased(erasure):
            expected = sample(model, prompts, seeds, sampler).astype(int)
            found = sample(compiled, prompts, seeds, sampler)
        assert abs(expected - found).max() <= 1
        graphs.append(count())
    # A batch that is short and weights that changed need no other.
    assert graphs[0] < graphs[1] == graphs[2]
    assert compiled.unet is unet
    assert not differing(before, state(compiled))
    assert not Build.of(unet).hooked


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_a_compiled_copy_is_compiled_once_and_leaves_the_model_as_it_was(layout: Layout) -> None:
    check_sampling(layout, lambda: counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("layout", first_quick(["sd1", "sdxl"]))
def test_sampling_goes_through_the_copy_and_leaves_the_model_as_it_was(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be compiled is not, since that takes seconds; it would be for each shape of its inputs."""
    shapes = set[tuple[torch.Size, ...]]()

    def compile_not(module: torch.nn.Module, *, backend: str, dynamic: bool) -> Callable[..., Any]:
        assert (backend, dynamic) == ("eager", False)

        def call(*inputs: Tensor, **named: Any) -> Any:
            shapes.add(tuple(tensor.shape for tensor in inputs))
            return module(*inputs, **named)

        return call

    monkeypatch.setattr(torch, "compile", compile_not)
    check_sampling(layout, lambda: len(shapes))


def test_the_model_has_its_unet_back_after_an_error() -> None:
    model = compiled_model()
    unet = model.unet
    with pytest.raises(KeyboardInterrupt), torch.no_grad(), model.sampling():
        assert model.unet is not unet
        raise KeyboardInterrupt
    assert model.unet is unet


def drawn(model: DiffusionModel) -> Tensor:
    latents, text = given(model, 1)
    with torch.no_grad():
        return sample_latents(model, latents, text, Sampler("ddim", 2))


def test_a_copy_that_sampling_made_serves_what_follows() -> None:
    """``sample`` is in inference mode, attacks and methods are not."""
    plain, model = tiny_model(), compiled_model()
    sample(model, ["church"], [0], Sampler("ddim", 1))
    torch.testing.assert_close(drawn(model), drawn(plain), atol=1e-4, rtol=1e-4)
    sample(model, ["church"], [0], Sampler("ddim", 1))


def is_copied(model: DiffusionModel) -> bool:
    """Whether it samples with a copy."""
    with torch.no_grad(), model.sampling():
        return isinstance(model.unet, SamplingUnet)


def test_adapters_are_merged_into_the_copy() -> None:
    plain, model = tiny_model(), compiled_model()
    expected = drawn(plain)
    torch.testing.assert_close(drawn(model), expected, atol=1e-4, rtol=1e-4)
    layers = [name for name, _ in model.unet.named_modules() if name.endswith("attn2.to_v")]
    with Adapters(plain.unet, layers, 2, 0) as one, Adapters(model.unet, layers, 2, 0) as other:
        rng = torch.Generator().manual_seed(0)
        for half in one.parameters:
            torch.nn.init.normal_(half, 0, 2, generator=rng)
        other.load(one.factors())
        adapted = drawn(plain)
        torch.testing.assert_close(drawn(model), adapted, atol=1e-3, rtol=1e-3)
        assert is_copied(model)
        with other.off():
            torch.testing.assert_close(drawn(model), expected, atol=1e-4, rtol=1e-4)
    assert (adapted - expected).abs().max() > 1e-2
    torch.testing.assert_close(drawn(model), expected, atol=1e-4, rtol=1e-4)


def test_hooks_are_not_passed_over() -> None:
    model = compiled_model()
    expected = drawn(model)
    assert is_copied(model)
    handle = model.unet.conv_out.register_forward_hook(lambda layer, inputs, output: output + 1)
    assert (drawn(model) - expected).abs().max() > 0.1
    assert not is_copied(model)
    handle.remove()
    assert torch.equal(drawn(model), expected)


def test_layers_and_attention_of_others_are_not_passed_over() -> None:
    model = compiled_model()
    assert is_copied(model)
    processors = model.unet.attn_processors
    model.unet.set_attn_processor(AttnProcessor())
    assert not is_copied(model)
    model.unet.set_attn_processor(processors)
    assert is_copied(model)
    torch.nn.utils.parametrizations.weight_norm(model.unet.conv_out)
    assert not is_copied(model)


def test_gradients_are_left_to_the_unet_itself() -> None:
    model = compiled_model()
    latents, text = given(model, 1)
    with model.sampling():
        predicted = model.predict(latents.requires_grad_(), STEP, text)
    assert torch.autograd.grad(predicted.square().mean(), latents)[0].abs().max() > 0


class Counted:
    """In place of a recording, which needs a GPU: it counts its replays."""

    made: ClassVar[list[Counted]] = []

    def __init__(self, predict: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self.predict, self.shapes, self.replays = predict, [tensor.shape for tensor in inputs], 0
        self.made.append(self)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        assert [tensor.shape for tensor in inputs] == self.shapes
        self.replays += 1
        return self.predict(*inputs)


def test_a_recording_serves_all_passes_of_its_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_unet, "Recording", Counted)
    monkeypatch.setattr(Counted, "made", [])
    model = tiny_model()
    copied = SamplingUnet(model.unet, torch.float32)

    def record(images: int) -> None:
        latents, text = given(model, 1, images)
        copied._recorded(lambda timestep, latents, text: latents, [STEP, latents, text.embeddings])

    for images in (1, 1, 2, 1):
        record(images)
    assert [one.replays for one in Counted.made] == [3, 1]
    for images in range(3, 3 + RECORDINGS - 1):
        record(images)
    record(1)
    assert Counted.made[0].replays == 4, "the last used is kept"
    record(2)
    assert len(Counted.made) == 2 + RECORDINGS, "of those that were given up one is made anew"
