"""Recorded passes against those of the U-Net itself; what stands in for a CUDA graph here computes anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from erasebench.memory import BatchSize
from erasebench.models import recordings
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.recordings import MAX_RECORDED_ROWS, MAX_TRAINED_ROWS, Build, Recorder, Recordings
from erasebench.training.adapters import Adapters
from erasebench.training.parameters import TwoWeights, select_parameters
from tests.tiny import Layout, tiny_model


class Recomputed:
    """In place of a graph: a replay writes into the memory of the first results, as a graph's does.

    Like a graph it calls what it was made with, which must not look at anything but tensors.
    """

    made = 0

    def __init__(self, compute: Callable[[], Sequence[Tensor | None]]) -> None:
        self._compute = compute
        with torch.enable_grad():
            self.results = [None if one is None else one.clone() for one in compute()]
            compute()  # what a graph's backward pass needs is there after any number of forward passes
        type(self).made += 1

    def replay(self) -> None:
        with torch.enable_grad():
            for mine, found in zip(self.results, self._compute(), strict=True):
                assert (mine is None) == (found is None)
                if mine is not None and found is not None:
                    mine.copy_(found)


def graph(
    compute: Callable[[], Sequence[Tensor | None]], device: torch.device, before: Recomputed | None = None
) -> Recomputed:
    assert (before is not None) == (compute.__name__ == "backward")
    if before is None:
        return Recomputed(compute)

    def keeping() -> Sequence[Tensor | None]:
        # It is called twice where a graph is recorded once.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.autograd, "grad", partial(torch.autograd.grad, retain_graph=True))
            return compute()

    return Recomputed(keeping)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "Graph", graph)
    monkeypatch.setattr(recordings, "_warm_up", lambda device, compute: compute())
    monkeypatch.setattr(Recorder, "_has_room", lambda self, device: True)
    monkeypatch.setattr(Recomputed, "made", 0)


class Passes:
    """Passes of a model, recorded and not, of values that are others each time."""

    def __init__(self, model: DiffusionModel, rows: int = 2) -> None:
        self.model, self.recorder, self.rows = model, Recorder(model.unet), rows
        self._rng = torch.Generator().manual_seed(0)
        self._text = model.embed([f"text {k}" for k in range(rows)])

    def given(self) -> tuple[Tensor, Tensor, dict[str, Any]]:
        latents = torch.randn((self.rows, *self.model.latent_shape), generator=self._rng)
        timesteps = torch.randint(1000, (self.rows,), generator=self._rng)
        text = self._text.embeddings + torch.randn(self._text.embeddings.shape, generator=self._rng)
        return latents, timesteps, {**self.model.conditions(latents, self._text), "encoder_hidden_states": text}

    def recorded(self, latents: Tensor, timesteps: Tensor, conditions: dict[str, Any]) -> Tensor | None:
        return self.recorder.predict(self.model.unet, latents, timesteps, conditions, self.model.dtype)

    def plain(self, latents: Tensor, timesteps: Tensor, conditions: dict[str, Any]) -> Tensor:
        predicted: Tensor = self.model.unet(latents, timesteps, **conditions, return_dict=False)[0]
        return predicted

    def check(self, wanted: Sequence[Tensor] = (), of_text: bool = False) -> bool:
        """Compare a prediction, and its gradients to parameters, and to the text; False if it was not recorded."""
        latents, timesteps, conditions = self.given()
        text = conditions["encoder_hidden_states"].requires_grad_(of_text)
        wanted = [*wanted, *([text] if of_text else [])]
        found = self.recorded(latents, timesteps, conditions)
        if found is None:
            return False
        expected = self.plain(latents, timesteps, conditions)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert found.requires_grad == bool(wanted)
        if wanted:
            pairs = zip(self.gradients(found, wanted), self.gradients(expected, wanted), strict=True)
            for mine, theirs in pairs:
                torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
                assert theirs.abs().max() > 1e-5
        return True

    @staticmethod
    def gradients(predicted: Tensor, wanted: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(predicted.square().sum(), wanted)


@pytest.fixture
def passes() -> Passes:
    return Passes(tiny_model())


@pytest.fixture
def trained(passes: Passes) -> Iterator[list[Tensor]]:
    """Parameters that are in training."""
    parameters = list(select_parameters(passes.model.unet, "xattn-kv").values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    yield list(parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
@torch.no_grad()
def test_without_gradients(layout: Layout) -> None:
    passes = Passes(tiny_model(layout))
    assert [passes.check() for _ in range(4)] == [False, True, True, True], "what comes once is not recorded"
    assert Recomputed.made == 1


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_gradients_to_the_text(layout: Layout) -> None:
    passes = Passes(tiny_model(layout))
    assert [passes.check(of_text=True) for _ in range(4)] == [False, True, True, True]
    assert Recomputed.made == 2


def test_gradients_to_parameters_that_change_in_between(passes: Passes, trained: list[Tensor]) -> None:
    assert not passes.check(trained)
    for _ in range(3):
        assert passes.check(trained, of_text=False)
        with torch.no_grad():
            for parameter in trained:
                parameter.mul_(1.3)
    assert Recomputed.made == 2
    assert not passes.check(trained, of_text=True), "another pass"
    assert passes.check(trained, of_text=True)


def test_two_values_of_the_same_parameters(passes: Passes) -> None:
    with TwoWeights(select_parameters(passes.model.unet, "xattn")) as weights:
        with torch.no_grad():
            for value in weights.trained.values():
                value.mul_(1.5)
        for _ in range(3):
            done = passes.check(list(weights.parameters.values())[:3])
            with weights.frozen():
                assert passes.check() == done
            with weights.frozen(gradients=True):
                assert passes.check(of_text=True) == done
    assert done


def test_adapters_on_and_off(passes: Passes) -> None:
    unet = passes.model.unet
    layers = [name for name, _ in unet.named_modules() if name.endswith("attn2.to_v")]
    with torch.no_grad():
        passes.check()
        assert passes.check()
    with Adapters(unet, layers, 2, 0) as adapters:
        for half in adapters.parameters:
            torch.nn.init.normal_(half, 0, 1, generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            done = passes.check(adapters.parameters)
            with adapters.off():
                assert passes.check() == done
        assert done
    with torch.no_grad():
        assert passes.check()


def test_a_second_pass_before_the_backward_pass_of_the_first_is_not_by_the_recording(passes: Passes) -> None:
    passes.check(of_text=True)
    latents, timesteps, conditions = passes.given()
    text = conditions["encoder_hidden_states"].requires_grad_()
    first = passes.recorded(latents, timesteps, conditions)
    assert first is not None
    assert not passes.check(of_text=True)
    expected = passes.gradients(passes.plain(latents, timesteps, conditions), [text])[0]
    loss = first.square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, text, retain_graph=True)[0], expected, atol=1e-5, rtol=1e-3)
    with pytest.raises(RuntimeError, match="made again, or gone back through, before this backward pass"):
        torch.autograd.grad(loss, text, retain_graph=True)
    assert passes.check(of_text=True), "the first is over, though its loss is still there"
    with pytest.raises(RuntimeError, match="made again, or gone back through"):
        torch.autograd.grad(loss, text)
    forgotten = passes.recorded(*passes.given())
    del forgotten
    assert passes.check(of_text=True), "nobody can ask for the gradients of one that is forgotten"


def test_gradients_do_not_share_memory(passes: Passes, trained: list[Tensor]) -> None:
    passes.check(trained)
    given = [passes.given() for _ in range(2)]
    for one in given:
        found = passes.recorded(*one)
        assert found is not None
        found.square().sum().backward()  # type: ignore[no-untyped-call]
    expected = [passes.gradients(passes.plain(*one), trained) for one in given]
    for parameter, *each in zip(trained, *expected, strict=True):
        torch.testing.assert_close(parameter.grad, sum(each), atol=1e-5, rtol=1e-3)


def hook(unet: Any) -> Callable[[], None]:
    return cast(
        Callable[[], None], unet.conv_out.register_forward_hook(lambda layer, inputs, output: output + 1).remove
    )


def backward_hook(unet: Any) -> Callable[[], None]:
    return cast(Callable[[], None], unet.conv_out.register_full_backward_hook(lambda *given: None).remove)


def hook_of_all_layers(unet: Any) -> Callable[[], None]:
    handle = torch.nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: None)
    return handle.remove


def hook_of_a_weight(unet: Any) -> Callable[[], None]:
    weight = unet.conv_out.weight.requires_grad_(True)
    handle = weight.register_hook(lambda gradient: 2 * gradient)

    def undo() -> None:
        handle.remove()
        weight.requires_grad_(False)

    return undo


def other_forward(unet: Any) -> Callable[[], None]:
    unet.conv_out.forward = lambda inputs: 2 * type(unet.conv_out).forward(unet.conv_out, inputs)
    return lambda: vars(unet.conv_out).pop("forward")


def other_attention(unet: Any) -> Callable[[], None]:
    processors = unet.attn_processors
    unet.set_attn_processor(AttnProcessor())
    return lambda: unet.set_attn_processor(processors)


def checkpointing(unet: Any) -> Callable[[], None]:
    unet.enable_gradient_checkpointing()
    return cast(Callable[[], None], unet.disable_gradient_checkpointing)


def free_u(unet: Any) -> Callable[[], None]:
    unet.enable_freeu(0.9, 0.2, 1.2, 1.4)
    return cast(Callable[[], None], unet.disable_freeu)


@pytest.mark.parametrize(
    "change",
    [
        hook,
        backward_hook,
        hook_of_all_layers,
        hook_of_a_weight,
        other_forward,
        other_attention,
        checkpointing,
        free_u,
    ],
)
def test_what_is_not_recorded(change: Callable[[Any], Callable[[], None]], passes: Passes) -> None:
    def is_recorded() -> bool:
        with torch.no_grad():
            passes.check()
            return passes.check()

    assert is_recorded()
    undo = change(passes.model.unet)
    assert not is_recorded()
    undo()
    assert is_recorded()


def test_what_is_another_pass(passes: Passes) -> None:
    unet = passes.model.unet
    layers = [name for name, _ in unet.named_modules() if name.endswith("attn2.to_v")]
    with torch.no_grad():
        passes.check()
        assert passes.check()
        torch.nn.utils.parametrizations.weight_norm(unet.conv_out)
        assert [passes.check(), passes.check()] == [False, True]
        for rank in (2, 3):
            with Adapters(unet, layers, rank, 0) as adapters:
                for half in adapters.parameters:
                    torch.nn.init.normal_(half, 0, 1, generator=torch.Generator().manual_seed(0))
                assert [passes.check(), passes.check()] == [False, True]
                for layer in unet.modules():
                    if hasattr(type(layer), "set_scale"):
                        layer.set_scale("default", 3.0)
                assert [passes.check(), passes.check()] == [False, True]
        unet.train()
        assert not passes.check()
        passes.model.dtype = torch.bfloat16
        latents, timesteps, conditions = passes.given()
        assert passes.recorded(latents, timesteps, conditions) is None


def test_conditions_of_other_names_are_not_recorded(passes: Passes) -> None:
    latents, timesteps, conditions = passes.given()
    with torch.no_grad():
        for _ in range(3):
            given = {**conditions, "encoder_attention_mask": torch.ones(2, 77)}
            assert passes.recorded(latents, timesteps, given) is None


def test_weights_that_are_written_to_before_the_backward_pass_are_an_error(
    passes: Passes, trained: list[Tensor]
) -> None:
    passes.check(trained)
    predicted = passes.recorded(*passes.given())
    assert predicted is not None
    with torch.no_grad():
        trained[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        passes.gradients(predicted, trained)


def test_a_weight_that_needs_no_gradient_any_more_takes_none_from_others(passes: Passes, trained: list[Tensor]) -> None:
    latents, timesteps, conditions = passes.given()
    recording = recordings.GradientRecording(
        lambda *given: passes.plain(latents, timesteps, conditions), [latents], cast(list[nn.Parameter], trained)
    )
    predicted, turn, _ = recording.forward([latents])
    trained[0].requires_grad_(False)
    recording._backward.replay = lambda: None  # type: ignore[method-assign]  # what stands in for a graph would complain
    of_latents, *gradients = recording.backward(torch.ones_like(predicted), turn)
    assert of_latents is None
    assert [one.shape for one in gradients if one is not None] == [one.shape for one in trained]


def test_many_rows_are_not_recorded() -> None:
    model = tiny_model()
    for rows, of_text, few in [(MAX_TRAINED_ROWS + 1, True, False), (MAX_RECORDED_ROWS + 1, False, False)]:
        passes = Passes(model, rows)
        with torch.set_grad_enabled(of_text):
            assert [passes.check(of_text=of_text) for _ in range(2)] == [False, few]
    assert Recomputed.made == 0


def test_without_room_nothing_is_recorded(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorder, "_has_room", lambda self, device: False)
    assert not any(passes.check(of_text=True) for _ in range(3))
    assert Recomputed.made == 0


def test_half_of_the_memory_is_left_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    gpu, free = torch.device("cuda"), 11 * 10**9
    monkeypatch.setattr(recordings, "free_memory", lambda device, gigabytes=None: free)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 24 * 10**9))
    unet = tiny_model().unet
    assert not Recorder(unet)._has_room(gpu)
    assert not Recorder(unet, 22.5)._has_room(gpu)
    assert Recorder(unet, 20)._has_room(gpu)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("operation not permitted when capturing")])
def test_what_cannot_be_recorded_is_not_tried_again(error: Exception) -> None:
    kept, tries = Recordings(), list[str]()

    def record() -> Any:
        tries.append("tried")
        raise error

    assert kept.get("pass", record) is None
    assert kept.get("pass", record) is None
    assert tries == ["tried"]
    kept.clear()
    assert kept.get("pass", record) is None
    assert tries == ["tried"] * 2


def test_recordings_are_given_back_when_memory_runs_out(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with torch.no_grad():
        passes.check()
        assert passes.check()
    assert passes.recorder.count == 1

    def compute(part: slice) -> int:
        if part.stop - part.start > 2:
            raise torch.OutOfMemoryError
        return int(part.stop - part.start)

    assert list(BatchSize().batches(4, compute)) == [2, 2]
    assert passes.recorder.count == 0


def test_errors_of_the_code_are_not_hidden() -> None:
    def record() -> Any:
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        Recordings().get("pass", record)


def test_the_build_of_a_network() -> None:
    unet = tiny_model().unet
    build = Build.of(unet)
    assert not build.hooked
    assert len(build.attention) == len(unet.attn_processors)
    assert build.adapters == ()
    with Adapters(unet, [name for name, _ in unet.named_modules() if name.endswith("attn2.to_v")], 2, 0) as adapters:
        on = Build.of(unet)
        with adapters.off():
            off = Build.of(unet)
    assert on != off != build
    assert build == Build.of(unet)
