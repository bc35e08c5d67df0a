"""A U-Net that shares what its calls have in common, against the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.loading import find_model, load_model
from erasebench.models.shared_passes import shared_passes
from tests.tiny import differing, state, tiny_model

STEP = torch.tensor(500)


@pytest.fixture(scope="module")
def picturebook() -> DiffusionModel:
    """Its first block has no cross-attention: the U-Nets of Stable Diffusion have one there."""
    return load_model(find_model("picturebook"), "cpu", "float32")


@pytest.fixture(scope="module", params=["sd1", "sd2", "picturebook"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("picturebook") if request.param == "picturebook" else tiny_model(request.param)


def given(model: DiffusionModel, texts: int, pictures: int = 2) -> tuple[Tensor, Conditioning]:
    """Latents ``[pictures, ...]``, and embeddings of so many texts for each."""
    latents = torch.randn((pictures, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    return latents, model.embed([f"text {k}" for k in range(texts * pictures)])


def sizes(module: nn.Module) -> list[int]:
    """The rows of each tensor that a module is given, from now on."""
    rows: list[int] = []
    module.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    return rows


@pytest.mark.parametrize("texts", [1, 2, 3])
@torch.no_grad()
def test_predictions_are_those_of_the_plain_unet(model: DiffusionModel, texts: int) -> None:
    latents, text = given(model, texts)
    expected = model.predict(torch.cat([latents] * texts), STEP, text)
    with shared_passes(model.unet):
        found = model.predict(latents, STEP, text)
        # So does a batch in which the latents differ.
        other = torch.randn(torch.cat([latents] * texts).shape, generator=torch.Generator().manual_seed(1))
        found_other = model.predict(other, STEP, text)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found_other, model.predict(other, STEP, text), atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01


@torch.no_grad()
def test_what_stands_before_the_first_cross_attention_is_computed_once(picturebook: DiffusionModel) -> None:
    unet = picturebook.unet
    latents, text = given(picturebook, 3)
    first, second, last = sizes(unet.conv_in), sizes(unet.down_blocks[0].resnets[-1]), sizes(unet.conv_out)
    with shared_passes(unet):
        picturebook.predict(latents, STEP, text)
    assert (first, second, last) == ([2], [2], [6])


@torch.no_grad()
def test_convolutions_keep_channels_last(picturebook: DiffusionModel) -> None:
    layouts: list[bool] = []

    def note(module: nn.Module, given: Any, made: Tensor) -> None:
        layouts.append(made.is_contiguous(memory_format=torch.channels_last))

    handle = picturebook.unet.mid_block.resnets[0].conv1.register_forward_hook(note)
    latents, text = given(picturebook, 1)
    picturebook.predict(latents, STEP, text)
    with shared_passes(picturebook.unet):
        picturebook.predict(latents, STEP, text)
    handle.remove()
    assert layouts == [False, True]


@torch.no_grad()
def test_text_is_projected_once_for_all_calls_that_are_given_it() -> None:
    model = tiny_model()
    latents, text = given(model, 1)
    projected = sizes(model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k)
    calls: list[Tensor] = []
    project = nn.Linear.forward

    def counted(self: nn.Linear, argument: Tensor) -> Tensor:
        if self is model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k:
            calls.append(argument)
        return project(self, argument)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", counted)
        with shared_passes(model.unet):
            for timestep in (900, 500, 100):
                model.predict(latents, torch.tensor(timestep), text)
    assert len(projected) == 3
    assert len(calls) == 1


@torch.no_grad()
def test_nothing_is_left_behind() -> None:
    model = tiny_model()
    latents, text = given(model, 2, 3)
    first, second = text.chunk(2)
    wanted = [model.predict(latents, STEP, given) for given in (first, second, first)]
    before = state(model)
    with shared_passes(model.unet):
        found = [model.predict(latents, STEP, given) for given in (first, second, first)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    changed = {
        name: value + 1 for name, value in before.items() if ".attn2.to_v." in name or name.endswith("conv1.weight")
    }
    with model.erased(Erasure(changed)):
        assert not torch.allclose(model.predict(latents, STEP, first), wanted[0], atol=1e-2)
        with shared_passes(model.unet):
            assert not torch.allclose(model.predict(latents, STEP, first), wanted[0], atol=1e-2)
    assert torch.equal(model.predict(latents, STEP, first), wanted[0])
    assert_plain(model.unet)
    assert differing(before, state(model)) == set()


def test_nothing_is_left_behind_after_an_exception() -> None:
    model = tiny_model()
    with pytest.raises(KeyboardInterrupt), shared_passes(model.unet):
        assert any("forward" in vars(module) for module in model.unet.modules())
        raise KeyboardInterrupt
    assert_plain(model.unet)


def assert_plain(unet: nn.Module) -> None:
    """No method, no weight and no hook of a U-Net's modules but their own."""
    for module in unet.modules():
        assert not {"forward", "weight"} & set(vars(module))
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_gradients_reach_the_weights() -> None:
    model = tiny_model()
    latents, text = given(model, 2)
    weight = model.unet.conv_in.weight.requires_grad_()
    expected = torch.autograd.grad(model.predict(torch.cat([latents] * 2), STEP, text).square().mean(), weight)[0]
    with shared_passes(model.unet):
        found = torch.autograd.grad(model.predict(latents, STEP, text).square().mean(), weight)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert expected.abs().max() > 1e-3
