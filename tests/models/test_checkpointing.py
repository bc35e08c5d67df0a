"""Gradient checkpointing: the same numbers, bit for bit, whatever a method does with the weights within a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from erasebench.hyper_parameters import make_plugin
from erasebench.memory import USABLE_SHARE
from erasebench.models import checkpointing
from erasebench.models.checkpointing import GradientCheckpointing
from erasebench.models.conditioning import Conditioning
from erasebench.models.diffusion import DiffusionModel
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, sample, sample_latents
from erasebench.training.parameters import TwoWeights, select_parameters
from tests.marks import first_quick
from tests.tiny import concept, differing, erase_context, state, tiny_model

# Diffusers' DPM-Solver++.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "esd-u": {"steps": 2, "sampling_steps": 3, "learning_rate": 1e-3},
    "ap-u": {"steps": 2, "sampling_steps": 2, "search_steps": 1, "search_gradient": "both", "vocabulary_size": 100},
    "ca": {"steps": 2, "pictures": 2, "sampling_steps": 2, "batch_size": 2},
    "fmn": {"steps": 2, "inversion_steps": 2, "pictures": 2, "sampling_steps": 2},
    # Both record what cross-attention does in the pass, which is gone through twice.
    "mace": {"steps": 2, "pictures": 2, "sampling_steps": 2, "prior": "none", "lamb": 0.1, "learning_rate": 1e-2},
    "salun": {"steps": 2, "pictures": 2, "sampling_steps": 2, "batch_size": 2},
}


def erased(name: str, mode: Any) -> tuple[DiffusionModel, dict[str, Tensor]]:
    """What a method makes of a model, and the model."""
    model, concepts = tiny_model(), [concept("Van Gogh", "style", anchor="art")]
    model.checkpointing = GradientCheckpointing(mode)
    plugin = METHODS.get(name)
    method = make_plugin(plugin.make, {**plugin.presets, **SETTINGS[name]}).resolved(concepts)
    return model, dict(method.erase(model, concepts, erase_context()).weights)


@pytest.mark.parametrize("name", first_quick(SETTINGS))
def test_an_erasure_is_the_same_bit_for_bit(name: str) -> None:
    before = state(tiny_model())
    (plain, without), (model, found) = erased(name, "off"), erased(name, "on")
    assert model.checkpointing.used and not plain.checkpointing.used
    assert not differing(without, found)
    assert any(not torch.equal(value, before[key]) for key, value in found.items()), "the method trained"
    assert not differing(before, state(model)), "the model is as it was"


def text_gradient(mode: Any) -> Tensor:
    """Of what frozen weights predict, when others are in force by the time of the backward pass."""
    model = tiny_model()
    model.checkpointing = GradientCheckpointing(mode)
    weights = TwoWeights(select_parameters(model.unet, "full"))
    for value in weights.trained.values():
        value.add_(0.1)
    text = model.embed(["a church"]).embeddings.requires_grad_()
    with weights:
        with weights.frozen(gradients=True):
            predicted = model.predict(torch.ones(1, *model.latent_shape), 500, Conditioning(text))
        return torch.autograd.grad(predicted.square().sum(), text)[0]


def test_what_is_computed_again_is_of_the_weights_of_the_first_time() -> None:
    assert torch.equal(text_gradient("on"), text_gradient("off"))


def kept_bytes(model: DiffusionModel) -> int:
    """Bytes that a pass keeps for its backward pass outside of checkpoints."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    model.unet.requires_grad_(True)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model.predict(torch.zeros(1, *model.latent_shape), 0, model.embed([""]))
    return sum(sizes)


def test_a_pass_keeps_less_and_can_be_switched_back() -> None:
    model = tiny_model()
    plain = kept_bytes(model)
    with GradientCheckpointing("on").of(model):
        assert kept_bytes(model) < 0.7 * plain
    assert kept_bytes(model) == plain


def test_auto_checkpoints_where_the_rows_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "free_memory", lambda device, gigabytes: 1000)
    model = tiny_model()
    model.checkpointing = GradientCheckpointing("auto", row=100, fixed=50)
    for rows, on in ((8, False), (9, True), (2, False)):  # of 1000 bytes, 900 are planned with
        model.predict(torch.zeros(rows, *model.latent_shape).requires_grad_(), 0, model.embed([""] * rows))
        assert model.unet.is_gradient_checkpointing == on
    # What is trained takes its gradient and Adam's two moments as well.
    model.checkpointing = GradientCheckpointing("auto", row=1, fixed=0)
    model.unet.conv_out.bias.requires_grad_(True)
    numbers = model.unet.conv_out.bias.numel()
    for free, on in ((1 + 12 * numbers + 1, False), (12 * numbers, True)):
        model.checkpointing = GradientCheckpointing("auto", row=1, fixed=0)
        monkeypatch.setattr(checkpointing, "free_memory", lambda device, gigabytes, free=free: free / USABLE_SHARE)
        model.predict(torch.zeros(1, *model.latent_shape), 0, model.embed([""]))
        assert model.unet.is_gradient_checkpointing == on


def test_sampling_is_never_checkpointed() -> None:
    model = tiny_model()
    model.checkpointing = GradientCheckpointing("on")
    with torch.enable_grad():
        sample_latents(model, torch.zeros(1, *model.latent_shape), model.embed(["a"]), Sampler("ddim", 1))
    sample(model, ["a"], [0], Sampler("ddim", 1))
    assert not model.checkpointing.used
