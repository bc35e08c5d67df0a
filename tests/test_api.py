"""The public API: pipelines erased, runs, and what importing the package costs."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

import erasebench
from erasebench.judges.weights_files import FOLDER
from erasebench.picturebook import load_pipeline
from erasebench.results.attacks import read_attacks
from tests.engine.runs import command, fast_stages, forget_plugins
from tests.golden.stores import unpack
from tests.models.stock import stock_pipeline

FEW: dict[str, Any] = {"steps": 2, "batch_size": 2, "sampling_steps": 2}
"""Hyper-parameters of a training that takes no time."""
DM2 = "dm2[rank=1;pool_size=1;images=1]"
"""A method whose attack is in a store that is kept."""
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")
PLUGIN = """
from dataclasses import dataclass

import torch

from erasebench import METHODS, Erasure, Method


@METHODS.register("text-eraser")
@dataclass(frozen=True)
class TextEraser(Method):
    changes_text_encoder = True

    def erase(self, model, concepts, context):
        name = "text_encoder." + next(name for name, _ in model.text_encoder.named_parameters())
        return Erasure(low_rank={name: (torch.ones(len(model.parameters()[name]), 1), torch.ones(1, 16))})


@METHODS.register("blind")
@dataclass(frozen=True)
class Blind(Method):
    def judges(self, domain, concepts):
        return ("inception",)

    def erase(self, model, concepts, context):
        raise AssertionError


@METHODS.register("breaking")
@dataclass(frozen=True)
class Breaking(Method):
    diverges: bool = False

    def erase(self, model, concepts, context):
        if self.diverges:
            raise FloatingPointError("training diverged: the loss is nan at step 3")
        raise RuntimeError("a mistake")
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[None]:
    from erasebench.registry import load_file

    path = tmp_path / "api_plugin.py"
    path.write_text(PLUGIN)
    load_file(path)
    yield
    forget_plugins()


def snapshot(pipeline: Any) -> dict[str, Tensor]:
    """A copy of every number of a pipeline."""
    return {
        f"{part}.{name}": tensor.detach().clone()
        for part, network in networks(pipeline).items()
        for name, tensor in network.state_dict().items()
    }


def flags(pipeline: Any) -> list[Any]:
    """What else training could leave behind."""
    parts = networks(pipeline).values()
    return [
        *((network.training, network.dtype, network.device) for network in parts),
        *((p.requires_grad, p.grad) for network in parts for p in network.parameters()),
        dict(pipeline.scheduler.config),
    ]


def networks(pipeline: Any) -> dict[str, Any]:
    return {part: pipeline.components[part] for part in PARTS if part in pipeline.components}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def draw(pipeline: Any, prompt: str = "a photo of a church") -> NDArray[np.float32]:
    image: NDArray[np.float32] = pipeline(
        prompt, num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0)
    ).images[0]
    return image


@pytest.mark.parametrize("layout", ["sd1", "sdxl", pytest.param("sd2", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("method", "settings"), [("uce", {}), ("esd-x", FEW)])
def test_a_pipeline_is_erased_and_the_given_one_left_alone(method: str, settings: dict[str, Any], layout: Any) -> None:
    given = stock_pipeline(layout)
    before, marks, drawn = snapshot(given), flags(given), draw(given)
    erased = erasebench.erase(given, method, "church", **settings)
    assert type(erased) is type(given) and erased is not given
    assert differing(before, snapshot(given)) == set() and flags(given) == marks
    assert np.array_equal(draw(given), drawn)
    changed = differing(before, snapshot(erased))
    assert changed and all(name.startswith("unet.") and ".attn2." in name for name in changed)
    erased.set_progress_bar_config(disable=True)
    assert not np.array_equal(draw(erased), drawn)
    assert flags(erased) == marks
    assert erased.text_encoder is given.text_encoder and erased.vae is given.vae and erased.unet is not given.unet
    assert erased.scheduler is not given.scheduler
    again = erasebench.erase(given, method, "church", **settings)
    assert differing(snapshot(erased), snapshot(again)) == set()


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_what_the_caller_set_neither_matters_nor_changes(without_gradients: Any) -> None:
    given = stock_pipeline()
    wanted, random = snapshot(erasebench.erase(given, "esd-x", "church", **FEW)), torch.get_rng_state()
    with without_gradients():
        erased = erasebench.erase(given, "esd-x", "church", **FEW)
        assert not torch.is_grad_enabled()
    assert differing(wanted, snapshot(erased)) == set()
    assert torch.equal(torch.get_rng_state(), random)


def test_an_erased_pipeline_can_be_saved(tmp_path: Path) -> None:
    for given in (stock_pipeline(), stock_pipeline("sdxl"), load_pipeline()):
        erased = erasebench.erase(given, "uce", "church")
        folder = tmp_path / type(given).__name__
        erased.save_pretrained(folder)
        saved = type(given).from_pretrained(folder)
        assert differing(snapshot(erased), snapshot(saved)) == set()


@pytest.mark.usefixtures("plugins")
def test_a_method_that_changes_the_text_encoder() -> None:
    given = stock_pipeline()
    erased = erasebench.erase(given, "text-eraser", "church")
    assert erased.unet is given.unet and erased.text_encoder is not given.text_encoder
    assert len(differing(snapshot(given), snapshot(erased))) == 1


def test_a_pipeline_in_half_precision_stays_so() -> None:
    given = stock_pipeline().to(torch.bfloat16)
    before = snapshot(given)
    erased = erasebench.erase(given, "esd-x", "church", **FEW)
    assert {tensor.dtype for tensor in snapshot(erased).values() if tensor.is_floating_point()} == {torch.bfloat16}
    assert differing(before, snapshot(given)) == set() != differing(before, snapshot(erased))


def test_several_concepts_and_words_of_ones_own_are_erased_together() -> None:
    given = stock_pipeline()
    alone = snapshot(erasebench.erase(given, "uce", "phrase:red bicycle"))
    together = snapshot(erasebench.erase(given, "uce", ["phrase:red bicycle", "church"]))
    assert differing(alone, together)
    assert differing(together, snapshot(erasebench.erase(given, "uce", "phrase:red bicycle,church"))) == set()


def test_progress_and_seed() -> None:
    told: list[tuple[int, int, str]] = []
    given = stock_pipeline()
    erased = [
        erasebench.erase(given, "esd-x", "church", seed=seed, progress=lambda *step: told.append(step), **FEW)
        for seed in (0, 1)
    ]
    assert [(done, of) for done, of, _ in told] == 2 * [(1, 2), (2, 2)]
    assert all(note.startswith("loss ") for _, _, note in told)
    assert differing(*map(snapshot, erased))


def test_picturebook_by_name_by_pipeline_and_by_the_command_line_are_the_same(tmp_path: Path) -> None:
    options = ("--settings", "steps=2,batch_size=2,sampling_steps=2", "--seed", "3", "--device", "cpu")
    export = ("--export", "diffusers", "--out", tmp_path / "church")
    assert command("erase", "--method", "esd-x", "--concept", "church", *options, *export) == 0
    exported = StableDiffusionPipeline.from_pretrained(tmp_path / "church" / "diffusers", safety_checker=None)
    wanted, unerased = snapshot(exported), load_pipeline()
    if not torch.cuda.is_available():
        assert differing(wanted, snapshot(erasebench.erase("picturebook", "esd-x", "church", seed=3, **FEW))) == set()
    erased = erasebench.erase(unerased, "esd-x", "church", seed=3, **FEW)
    assert differing(wanted, snapshot(erased)) == set() != differing(wanted, snapshot(unerased))
    # What is erased can be erased further, as Picturebook still.
    further = erasebench.erase(erased, "esd-x", "nudity", steps=1, batch_size=1, sampling_steps=1)
    assert further.name_or_path == unerased.name_or_path


def test_a_folder_can_be_erased(tmp_path: Path) -> None:
    given = stock_pipeline()
    given.save_pretrained(tmp_path)
    erased, wanted = (erasebench.erase(model, "uce", "church") for model in (str(tmp_path), given))
    assert differing(snapshot(erased.to("cpu")), snapshot(wanted)) == set()


def test_an_erasure_for_those_who_want_it() -> None:
    given = stock_pipeline()
    before = snapshot(given)
    rule = erasebench.erasure_of(given, "sld-max", "nudity")
    assert rule.guidance is not None and not rule.weights
    trained = erasebench.erasure_of(given, "esd-x", "church", **FEW)
    assert len(trained.trace) == 2 and trained.weights
    assert differing(before, snapshot(given)) == set()


@pytest.mark.parametrize(
    ("method", "concepts", "options", "message"),
    [
        ("esdx", "church", {}, "unknown method 'esdx'; nearest: esd-x"),
        ("esd-x", "churhc", {}, "unknown concept 'churhc'; nearest: church"),
        ("esd-x", "church", {"stepz": 1}, "unknown hyper-parameter 'stepz'; nearest: steps"),
        ("esd-x", "church", {"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ("sld-max", "church", {}, "sld-max changes guidance and no weights: no stock pipeline can hold it"),
        ("negative-prompt", "church", {}, "negative-prompt changes guidance and no weights"),
        ("sd", "church", {}, "there is nothing to do"),
        ("uce", [], {}, "no concepts; give a name"),
        ("uce", "church", {"seed": -1}, "configuration key seed"),
        ("uce", "church", {"max_memory": 0}, "configuration key max_memory"),
        ("uce", "church", {"max_memory": 4}, "--max-memory is of a GPU, and this is on the CPU"),
        ("uce", "church", {"gradient_checkpointing": "yes"}, "configuration key gradient_checkpointing"),
        ("uce", "church", {"domain": "photos"}, "unknown domain 'photos'; nearest: photo"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    method: str, concepts: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.stages.session.copy_model", None)
    with pytest.raises(erasebench.EraseBenchError) as caught:
        erasebench.erase(stock_pipeline(), method, concepts, **options)
    assert message in str(caught.value)


def test_pipelines_that_cannot_be_erased() -> None:
    unlike: Any = SimpleNamespace(unet=None)
    with pytest.raises(erasebench.EraseBenchError, match="is needed, not SimpleNamespace"):
        erasebench.erase(unlike, "uce", "church")
    with pytest.raises(erasebench.EraseBenchError, match="no model 'somewhere'"):
        erasebench.erase("somewhere", "uce", "church")
    for name, value, message in (("peft_config", {"a": 1}, "unload_lora_weights"), ("_hf_hook", 1, "remove_all_hooks")):
        given = stock_pipeline()
        setattr(given.unet, name, value)
        with pytest.raises(erasebench.EraseBenchError, match=message):
            erasebench.erase(given, "uce", "church")


def test_methods_that_do_not_apply_to_a_family() -> None:
    with pytest.raises(
        erasebench.NotApplicable, match=r"dm2 cannot erase church here: .* Stable Diffusion XL also takes"
    ):
        erasebench.erase(stock_pipeline("sdxl"), "dm2", "church", domain="picturebook")


@pytest.mark.usefixtures("plugins")
def test_methods_that_lack_a_judge_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "none"))
    given = stock_pipeline()
    before = snapshot(given)
    with pytest.raises(erasebench.NotApplicable, match=r"blind cannot erase church here: .* is missing"):
        erasebench.erase(given, "blind", "church")
    with pytest.raises(erasebench.ErasureFailedError, match=r"^breaking church: RuntimeError: a mistake") as caught:
        erasebench.erase(given, "breaking", "church")
    assert "api_plugin.py" in caught.value.__notes__[0], "Python shows where, below the message"
    with pytest.raises(erasebench.ErasureFailedError, match="training diverged"):
        erasebench.erase(given, "breaking", "church", diverges=True)
    assert differing(before, snapshot(given)) == set()


def test_no_hyper_parameter_has_the_name_of_an_argument() -> None:
    arguments = set(inspect.signature(erasebench.erase).parameters) - {"hyper_parameters"}
    for name in erasebench.METHODS.names():
        make: Any = erasebench.METHODS.get(name).make
        assert not arguments & {field.name for field in fields(make)}, name


def test_a_run_gives_the_command_lines_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fast_stages(monkeypatch)
    options: dict[str, Any] = {
        "prompts": 2,
        "retain_prompts": 4,
        "reference_images": 4,
        "steps": 1,
        "workers": 1,
        "device": "cpu",
    }
    flat = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    places = ("--store", tmp_path / "one", "--out", tmp_path / "command")
    assert command("run", "--preset", "smoke", "--methods", "uce", "--concepts", "church", *flat, *places) == 0
    printed = capsys.readouterr().out
    results = erasebench.run(
        ["uce"], ["church"], preset="smoke", progress=False, **options, store=tmp_path / "two", out=tmp_path / "api"
    )
    assert capsys.readouterr() == ("", "")
    assert isinstance(results, erasebench.RunResults) and results.folder == tmp_path / "api"
    for name in ("table.csv", "table.md", "scores.csv"):
        assert (results.folder / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    assert str(results) == printed.removesuffix("\n")
    written = pd.read_csv(results.folder / "table.csv", keep_default_na=False, na_values={"ratio": [""]})
    assert list(results.table["method"]) == ["sd", "uce"] and list(results.table) == list(written)
    for key in ("ratio", "ratio_low", "ratio_high", "ratio_n"):
        np.testing.assert_allclose(results.table[key].astype(float), written[key].astype(float), rtol=1e-5)
    assert set(results.scores["probe"]) == {"concept", "retain"}
    # The configuration that a run leaves is the same run.
    again = erasebench.run(config=results.folder / "run.yaml", out=tmp_path / "again")
    assert again.table.equals(results.table)


def test_an_attack_is_the_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it is in a store that is kept for tests, so that nothing is computed."""
    monkeypatch.chdir(unpack(tmp_path) / "today")
    places = ("--store", "store", "--out", "command")
    how = ("--method", DM2, "--attack", "cce", "--concept", "church")
    assert command("attack", *how, "--config", "run/run.yaml", *places) == 0
    printed, said = capsys.readouterr()
    assert "0 computed, 10 from the store" in said
    results = erasebench.attack(DM2, "cce", "church", config="run/run.yaml", store="store", out="api", progress=False)
    assert capsys.readouterr() == ("", "")
    assert f"{results}\n" == printed and "cce: vectors 1, steps 2" in printed
    for name in ("table.csv", "attacks.csv"):
        assert (results.folder / name).read_bytes() == Path("command", name).read_bytes()
    assert list(results.table["attack"]) == ["none", "cce"] * 2
    written = read_attacks(results.folder)
    assert len(written) == 4 and results.attacks.astype(str).equals(written.astype(str))
    with pytest.raises(erasebench.EraseBenchError, match="unknown attack 'ccee'; nearest: cce"):
        erasebench.attack(DM2, "ccee", "church")


def test_an_attack_of_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for attacks in ("", list[str]()):
        with pytest.raises(erasebench.EraseBenchError, match="no attacks; give a name"):
            erasebench.attack("uce", attacks, "church")
    assert list(tmp_path.iterdir()) == []


def test_an_erasure_and_a_run_share_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"seed": 3, "store": tmp_path, "gradient_checkpointing": "on"}
    told: list[int] = []

    def tell(done: int, of: int, note: str) -> None:
        told.append(done)

    erased = erasebench.erase("picturebook", "esd-x", "church", progress=tell, **options, **FEW)
    method = "esd-x[steps=2;batch_size=2;sampling_steps=2]"
    where = ("--store", tmp_path, "--device", "cuda" if torch.cuda.is_available() else "cpu")
    assert command("plan", "--methods", method, "--concepts", "church", "--seed", "3", *where) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("erase ")]
    assert len(lines) == 1 and " sd " in lines[0], "only the unerased model is left to make"
    again = erasebench.erase("picturebook", "esd-x", "church", progress=tell, **options, **FEW)
    assert told == [1, 2] and differing(snapshot(erased), snapshot(again)) == set()
    with pytest.raises(erasebench.EraseBenchError, match="nothing tells two pipelines in memory apart"):
        erasebench.erase(stock_pipeline(), "uce", "church", store=tmp_path)


def test_a_limit_holds_while_a_copy_is_made_on_the_card_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def copy(pipeline: Any, source: Any, device: str, dtype: str) -> None:
        told.append((str(pipeline.device), device, dtype))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")

    monkeypatch.setattr("erasebench.planning.resolve_device", lambda *_, **__: "cuda")
    monkeypatch.setattr("erasebench.models.footprint.free_memory", lambda _, limit=None: 1e9 * (limit or 8))
    monkeypatch.setattr("erasebench.stages.session.copy_model", copy)
    for module in ("stages.session", "api"):
        monkeypatch.setattr(f"erasebench.{module}.limit_memory", lambda device, gigabytes: told.append(gigabytes))
    wanted = r"memory of cuda ran out: .* 1\.50 GiB .* for a copy of the model; .* a larger --max-memory than 6, a card"
    with pytest.raises(erasebench.EraseBenchError, match=wanted):
        erasebench.erase("picturebook", "uce", "church", max_memory=6)
    assert told == [6, ("cpu", "cuda", "bfloat16"), math.inf]


def test_a_card_that_is_too_small_is_refused_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.planning.resolve_device", lambda *_, **__: "cuda")
    monkeypatch.setattr("erasebench.models.footprint.free_memory", lambda _, limit=None: 1e9 * (limit or 8))
    monkeypatch.setattr("erasebench.api.load_stock", None)
    with pytest.raises(erasebench.EraseBenchError, match=r"cuda is too small .* --max-memory leaves 0\.01 GB"):
        erasebench.erase("picturebook", "uce", "church", max_memory=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["esdx"], "concepts": ["church"]}, "unknown method 'esdx'; nearest: esd-x"),
        ({"methods": ["uce"]}, "no concepts"),
        (
            {"methods": ["uce"], "concepts": ["church"], "promts": 3},
            "unknown configuration key 'promts'; nearest: prompts",
        ),
        ({"methods": ["uce"], "concepts": ["church"], "preset": "smok"}, "unknown preset 'smok'; nearest: smoke"),
        ({"config": "missing.yaml"}, "cannot read missing.yaml"),
        (
            {"methods": ["uce"], "concepts": ["church"], "out": 3},
            "key out: input should be a path, not 3",
        ),
        (
            {"methods": ["uce"], "concepts": ["church"], "store": 3},
            "key store: input should be a path, not",
        ),
        ({"methods": ["uce"], "concepts": ["church"], "store": ""}, "the name of a store is empty"),
        (
            {"methods": ["uce"], "concepts": ["church"], "patience": 0.001},
            "key patience: input should be",
        ),
    ],
)
def test_what_cannot_be_run_is_said_before_any_work(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(erasebench.EraseBenchError) as caught:
        erasebench.run(**options)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_package_offers_what_users_need_and_no_more() -> None:
    assert sorted(erasebench.__all__) == sorted(
        [
            *("attack", "erase", "erasure_of", "run", "RunResults"),
            *("EraseBenchError", "ErasureFailedError", "NotApplicable"),
            *("Attack", "Judge", "Method", "Metric"),
            *("Concept", "EraseContext", "Erasure", "Estimate", "Scores"),
            *("ATTACKS", "JUDGES", "METHODS", "METRICS", "__version__"),
        ]
    )
    for name in erasebench.__all__:
        offered = getattr(erasebench, name)
        assert not inspect.ismodule(offered)
        if inspect.isclass(offered) or inspect.isfunction(offered):
            assert offered.__doc__ and not offered.__doc__.startswith(f"{name}("), name
            assert offered.__name__ == name
    assert set(erasebench.__all__) <= set(dir(erasebench))
    with pytest.raises(AttributeError, match="has no attribute 'eraze'"):
        _ = erasebench.eraze  # type: ignore[attr-defined]


def test_importing_the_package_costs_nothing() -> None:
    code = (
        "import sys, time; began = time.process_time(); import erasebench; took = time.process_time() - began\n"
        "assert not {'torch', 'diffusers', 'numpy', 'pandas', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "import erasebench.erasures, erasebench.runs\n"
        "assert callable(erasebench.erase) and callable(erasebench.run)\n"
        "print(took)"
    )
    took = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(2)]
    assert min(took) <= 0.1
