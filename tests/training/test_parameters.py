"""Parameter sets against rules spelt out by hand, and the two values of a parameter in training."""

from __future__ import annotations

import re
from typing import Any, cast, get_args

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.training.parameters import Pattern, TwoWeights, select_parameters, training_attention
from tests.tiny import Layout, tiny_pipeline


@pytest.fixture(scope="module")
def stable_diffusion() -> Any:
    """The U-Net of Stable Diffusion 1.4, without memory for its weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def count(unet: nn.Module, pattern: Pattern) -> int:
    return sum(parameter.numel() for parameter in select_parameters(unet, pattern).values())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("xattn", 43_962_560),
        ("xattn-kv", 19_169_280),
        ("xattn-v", 9_584_640),
        ("selfattn", 49_574_080),
        ("attn", 43_962_560 + 49_574_080),
        # 16 blocks, whose widths are 320 and 640 (5 of each) and 1280 (6): a square matrix of queries in each.
        ("selfattn-and-queries", 49_574_080 + 5 * 320**2 + 5 * 640**2 + 6 * 1280**2),
        ("full", 859_520_964),
    ],
)
def test_counts_of_stable_diffusion(stable_diffusion: Any, pattern: Pattern, expected: int) -> None:
    assert count(stable_diffusion, pattern) == expected


def test_cross_attention_has_sixteen_pairs_of_matrices(stable_diffusion: Any) -> None:
    chosen = select_parameters(stable_diffusion, "xattn-kv")
    assert len(chosen) == 32
    assert {parameter.shape[1] for parameter in chosen.values()} == {768}


def test_noxattn_is_the_rule_of_the_2023_code(stable_diffusion: Any) -> None:
    # CompVis: skip 'attn2', names that start with 'out.', and 'time_embed'; its out.0 and out.2 are these two.
    skip = re.compile(r".*attn2.*|conv_norm_out\..*|conv_out\..*|time_embedding\..*")
    expected = {name for name, _ in stable_diffusion.named_parameters() if not skip.fullmatch(name)}
    chosen = set(select_parameters(stable_diffusion, "noxattn"))
    assert chosen == expected
    assert "conv_in.weight" in chosen
    assert "mid_block.resnets.0.time_emb_proj.weight" in chosen
    assert "down_blocks.0.attentions.0.norm.weight" in chosen


def test_noxattn_modules_is_the_rule_of_the_2024_code(stable_diffusion: Any) -> None:
    expected = {
        f"{name}.{own}"
        for name, module in stable_diffusion.named_modules()
        if module.__class__.__name__ in ("Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv")
        and "attn2" not in name
        for own, _ in module.named_parameters(recurse=False)
    }
    chosen = set(select_parameters(stable_diffusion, "noxattn-modules"))
    assert chosen == expected
    assert {"conv_out.weight", "time_embedding.linear_1.bias"} < chosen
    assert not any("norm" in name for name in chosen)


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("pattern", sorted({*get_args(Pattern)} - {"xlayer", "selflayer"}))
def test_every_pattern_chooses_something_everywhere(layout: Layout, pattern: Pattern) -> None:
    unet = tiny_pipeline(layout).unet
    own = dict(unet.named_parameters())
    assert all(own[name] is parameter for name, parameter in select_parameters(unet, pattern).items())
    assert 0 < count(unet, pattern) <= count(unet, "full")


@pytest.mark.parametrize(
    ("pattern", "attention", "blocks"),
    [
        ("xlayer", "attn2", ("output_blocks.6.1", "output_blocks.8.1")),
        ("selflayer", "attn1", ("input_blocks.4.1", "input_blocks.7.1")),
    ],
)
def test_single_layers_are_those_of_the_2023_code(
    stable_diffusion: Any, pattern: Pattern, attention: str, blocks: tuple[str, str]
) -> None:
    """CompVis numbers the blocks through: 3 to a level, of which the third input block only makes images smaller."""
    expected = set()
    for block in blocks:
        side, number = block.split(".")[:2]
        level, layer = divmod(int(number) - (side == "input_blocks"), 3)
        expected.add(f"{'down' if side == 'input_blocks' else 'up'}_blocks.{level}.attentions.{layer}")
    found = select_parameters(stable_diffusion, pattern)
    assert {name.partition(".transformer_blocks")[0] for name in found} == expected
    assert all(f".{attention}." in name for name in found)
    # Queries, keys, values and the output's weight and bias.
    assert len(found) == 2 * 5


def test_notime_and_full_modules_are_rules_of_the_codes(stable_diffusion: Any) -> None:
    everything = set(dict(stable_diffusion.named_parameters()))
    outside = {name for name in everything if re.match("time_embedding|conv_norm_out|conv_out", name)}
    assert set(select_parameters(stable_diffusion, "notime")) == everything - outside
    cross = set(select_parameters(stable_diffusion, "xattn"))
    modules = set(select_parameters(stable_diffusion, "full-modules"))
    assert modules == cross | set(select_parameters(stable_diffusion, "noxattn-modules"))
    assert not [name for name in modules if re.search(r"norm\d?\.|conv_norm_out", name)]


def test_layers_that_a_network_lacks_are_said() -> None:
    with pytest.raises(EraseBenchError, match=r"no parameters 'xlayer': up_blocks.2.attentions.0. or up_blocks.2"):
        select_parameters(tiny_pipeline().unet, "xlayer")


def test_an_unknown_pattern_names_the_nearest(stable_diffusion: Any) -> None:
    with pytest.raises(UnknownNameError, match="unknown parameters 'noxatn'; nearest: noxattn"):
        select_parameters(stable_diffusion, cast(Any, "noxatn"))


def test_two_weights_swap_and_restore() -> None:
    layer: Any = nn.Linear(2, 2).requires_grad_(False)
    own, storage = layer.weight.detach().clone(), layer.weight.data_ptr()
    with TwoWeights({"weight": layer.weight}) as weights:
        layer(torch.ones(2)).sum().backward()
        with torch.no_grad():
            layer.weight.add_(1)
        with weights.frozen():
            assert torch.equal(layer.weight, own)
            assert not layer(torch.ones(2)).requires_grad
        assert torch.equal(layer.weight, own + 1)
        assert layer(torch.ones(2)).requires_grad
    assert torch.equal(layer.weight, own)
    assert layer.weight.data_ptr() == storage
    assert layer.weight.grad is None
    assert not layer.weight.requires_grad
    assert torch.equal(weights.trained["weight"], own + 1)


def test_two_weights_restore_after_an_error() -> None:
    layer: Any = nn.Linear(2, 2)
    own = layer.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), TwoWeights({"weight": layer.weight}) as weights, weights.frozen():
        raise KeyboardInterrupt
    assert torch.equal(layer.weight, own)


def test_training_attention_changes_no_result() -> None:
    unet = tiny_pipeline().unet
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    with training_attention(torch.device("cpu")):
        mathematics = unet(x, 10, text).sample
    torch.testing.assert_close(mathematics, unet(x, 10, text).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["sd1", "sd2"])
def test_gradients_of_two_weights_are_those_of_two_networks(layout: Layout) -> None:
    """Of a loss between what both predict for one text: a graph must not mistake one's values for the other's."""
    unet, frozen, trained = (tiny_pipeline(layout).unet.requires_grad_(False) for _ in range(3))
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, trained.config.cross_attention_dim, requires_grad=True)
    changed = select_parameters(trained, "xattn")
    with torch.no_grad():
        for parameter in changed.values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    loss = (trained(x, 10, text).sample - frozen(x, 10, text).sample).square().mean()
    (expected,) = torch.autograd.grad(loss, text)
    with TwoWeights(select_parameters(unet, "xattn")) as weights:
        with torch.no_grad():
            for name, parameter in weights.parameters.items():
                parameter.copy_(changed[name])
        with weights.frozen(gradients=True):
            before = unet(x, 10, text).sample
        with weights.frozen():
            assert not unet(x, 10, text).sample.requires_grad
        (found,) = torch.autograd.grad((unet(x, 10, text).sample - before).square().mean(), text)
    torch.testing.assert_close(found, expected)
