"""``erasebench erase``: one method alone."""

from __future__ import annotations

import errno
import io
import signal
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from erasebench.config import make_config
from erasebench.config_options import read_erase_options
from erasebench.erasures import erase, plan_erasure
from erasebench.errors import EraseBenchError
from erasebench.methods import checkpoint
from erasebench.methods.checkpoint import Checkpoint
from erasebench.models.erasure import GUIDANCE, WEIGHTS, Erasure
from erasebench.planning import make_plan
from erasebench.registry import METHODS
from tests.engine.runs import command, forget_plugins, loaded_model
from tests.forks import in_a_child
from tests.marks import first_quick
from tests.tiny import concept, differing, erase_context, state

PLUGIN = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from erasebench.models.erasure import Erasure
from erasebench.errors import NotApplicable
from erasebench.plugins import Method
from erasebench.registry import METHODS

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@METHODS.register("careful")
@dataclass(frozen=True)
class Careful(Method):
    '''Keeps its state; stops or fails at a step if a file says so.'''
    steps: int = 4
    factored: bool = True
    low_rank: ClassVar[bool] = True

    def erase(self, model, concepts, context):
        state, trace = context.folder / "state", []
        first = int(state.read_text()) if state.exists() else 0
        for step in range(first, self.steps):
            for sign in Path().glob(f"{step}-*"):
                what = sign.name.partition("-")[2]
                sign.unlink()
                if what == "kill":
                    import os, signal
                    os.kill(os.getpid(), signal.SIGKILL)
                raise {"stop": KeyboardInterrupt, "diverge": FloatingPointError, "break": RuntimeError}[what](
                    f"training diverged: the loss is nan at step {step}"
                )
            context.progress(step + 1, self.steps, {"loss": 1 / (step + 1)})
            trace.append({"step": step + 1.0, "loss": 1 / (step + 1)})
            state.write_text(str(step + 1))
        own = model.parameters()[KEY].detach()
        if self.factored:
            pair = torch.full((len(own), 2), 0.1 * first + 0.1), torch.ones(2, own.shape[1])
            return Erasure(low_rank={KEY: pair}, trace=tuple(trace))
        return Erasure({KEY: own + 1}, record={"found": torch.ones(3)})


@METHODS.register("never")
@dataclass(frozen=True)
class Never(Method):
    def check(self, domain, concepts):
        raise NotApplicable(f"no {' and '.join(c.name for c in concepts)} in {domain}")

    def erase(self, model, concepts, context):
        raise AssertionError


@METHODS.register("blind")
@dataclass(frozen=True)
class Blind(Method):
    def judges(self, domain, concepts):
        return ("inception",)

    def erase(self, model, concepts, context):
        raise AssertionError


@METHODS.register("ruling")
@dataclass(frozen=True)
class Ruling(Method):
    guidance_only = True

    def erase(self, model, concepts, context):
        raise AssertionError
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are in a folder with a plug-in, and the model is loaded once."""
    monkeypatch.chdir(tmp_path)
    Path("erasing_plugin.py").write_text(PLUGIN)
    monkeypatch.setattr("erasebench.stages.session.load_model", loaded_model)
    yield
    forget_plugins()


OWN = ("--plugins", "erasing_plugin.py")


def run_erase(*more: str) -> int:
    """Exit code of a command; options that come later win."""
    fixed = ("--method", "careful", "--concept", "church", "--out", "out", "--device", "cpu", *OWN)
    return command("erase", *fixed, *more)


def about() -> dict[str, Any]:
    read = yaml.safe_load(Path("out/erase.yaml").read_text())
    assert isinstance(read, dict)
    return read


def planned(method: str, concepts: str = "church", **options: str) -> Any:
    given = {"device": "cpu", "settings": None, **options}
    return plan_erasure(read_erase_options(method, concepts, Path("out"), given))


def files() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


def test_what_an_erasure_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_erase("--method", "esd-x[steps=2]", "--settings", "batch_size=1,esd-x.sampling_steps=2") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("esd-x[steps=2] church: erased in ") and printed.out.endswith("; in out\n")
    assert printed.err.startswith("[1/1] erase esd-x[steps=2] church: ok, ")
    assert files() == ["erase.yaml", "erasure.safetensors", "loss.png", "trace.csv"]
    erasure, said = Erasure.load(Path("out")), about()
    assert [row["step"] for row in erasure.trace] == [1, 2] and "loss" in erasure.trace[0]
    assert said["parameters_changed"] == erasure.parameters_changed > 0
    assert said["method"] == "esd-x" and [c["name"] for c in said["concepts"]] == ["church"]
    parameters = said["parameters"]
    assert (parameters["steps"], parameters["batch_size"], parameters["sampling_steps"]) == (2, 1, 2)
    assert parameters["learning_rate"] == 4e-4, "Picturebook's own"
    assert parameters["target"] == "from-blank", "what None means in the paper's variant"
    assert len(said["model"]["fingerprint"]) == 64 and said["versions"]["packages"]["torch"]
    assert said["seconds"] > 0 and said["seed"] == 0 and "resumed" not in said
    with Image.open("out/loss.png") as picture:
        assert picture.width > 600


def test_a_seed_in_brackets_is_the_erasures_seed() -> None:
    in_brackets = planned("esd-x[steps=2;seed=3]").cell
    assert in_brackets.spec["seed"] == 3
    assert in_brackets.key == planned("esd-x[steps=2]", seed="3").cell.key != planned("esd-x[steps=2]").cell.key
    assert planned("esd-x[seed=3]", seed="5").cell.spec["seed"] == 3, "the brackets win"


def test_the_erasure_is_that_of_a_run() -> None:
    """The identity, and with it everything that can change a byte, is the same."""
    given = {"seed": "3", "settings": "uce.lamb=0.2", "dtype": "float32"}
    settings = {"uce": {"lamb": 0.2}}
    run = make_config({"methods": ["uce"], "concepts": ["nudity"], "seed": 3, "settings": settings, "device": "cpu"})
    row = make_plan(run).rows[1]
    assert row.probes["concept"].images is not None
    assert planned("uce", "nudity", **given).cell.key == row.probes["concept"].images.reads["erasure"].key
    assert planned("uce", "nudity").cell.key != row.probes["concept"].images.reads["erasure"].key


def test_settings_and_brackets() -> None:
    def parameters(method: str, settings: str) -> Any:
        found = planned(method, settings=settings).cell.spec["parameters"]
        return found["steps"], found["batch_size"]

    assert planned("esd-u").cell.spec["parameters"]["steps"] == 60, "Picturebook's own"
    assert parameters("esd-u", "steps=5,esd-u.batch_size=2") == (5, 2)
    assert parameters("esd-u[steps=7]", "steps=5,batch_size=2") == (7, 2)


def test_several_concepts_are_erased_together() -> None:
    cell = planned("uce", "church, nudity,church").cell
    assert [spec["name"] for spec in cell.spec["concepts"]] == ["church", "nudity"]
    assert cell.title == "uce church nudity"


def test_the_progress_shows_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    # Bars are drawn at most every 0.2 seconds; here a second passes at every look at the clock.
    monkeypatch.setattr("erasebench.engine.progress.time", SimpleNamespace(monotonic=count().__next__))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    options = {"device": "cpu", "plugins": "erasing_plugin.py", "settings": None}
    erase(read_erase_options("careful", "church", Path("out"), options), stream=screen)
    assert "erase careful church 1/4 loss 1 " in screen.getvalue()
    assert "erase careful church 4/4 loss 0.25 " in screen.getvalue()


BAD: list[tuple[Sequence[str], str]] = [
    (["--method", "ucee"], "unknown method 'ucee'; nearest: uce"),
    (["--method", "esd-u,uce"], "unknown method 'esd-u,uce'; nearest: esd-u"),
    (["--method", "uce[lam=1]"], "method uce[lam=1]: unknown hyper-parameter 'lam'; nearest: lamb"),
    (["--method", "uce[lamb=-1]"], "method uce[lamb=-1]: "),
    (["--method", "uce[lamb"], "is no method; write name or name["),
    (["--method", "sd"], "the method 'sd' is the unerased model"),
    (["--method", "never"], "never cannot erase church here: no church in picturebook"),
    (["--method", "blind"], "blind cannot erase church here: "),
    (["--method", "ruling", "--export", "diffusers"], "ruling changes guidance and no weights: it cannot be exported"),
    (["--method", "negative-prompt", "--export", "lora"], "negative-prompt changes guidance and no weights"),
    (["--method", "sld-max", "--export", "lora"], "sld-max changes guidance and no weights"),
    (["--method", "sld-max", "--export", "kohya-lora"], "sld-max changes guidance and no weights"),
    (["--method", "sld-max", "--export", "single-file"], "sld-max changes guidance and no weights"),
    (["--method", "uce", "--export", "lora"], "the change of uce is not low-rank: it cannot be a LoRA; use --export d"),
    (["--method", "uce", "--settings", "guide=a church"], "'church' would be mapped to 'a church', which is to be"),
    (
        ["--method", "esd-x", "--settings", "sampling_steps=5000"],
        "sampling_steps: Input should be less than or equal to 1000, not 5000",
    ),
    (
        ["--method", "mace", "--settings", "guidance_scale=-3"],
        "guidance_scale: Input should be greater than or equal to 0, not -3",
    ),
    (
        ["--method", "mace", "--settings", "interval_start=5000,interval_end=6000"],
        "below interval_end and 1000, not 5000",
    ),
    (
        ["--method", "uce", "--settings", "erase_scale=-1"],
        "erase_scale: Input should be greater than or equal to 0, not -1",
    ),
    (["--concept", "chuch"], "unknown concept 'chuch'; nearest: church"),
    (["--concept", "church,chuch"], "unknown concept 'chuch'; nearest: church"),
    (["--concept", ","], "no concept; name some with --concept"),
    (["--settings", "step=3"], "method careful: unknown hyper-parameter 'step'; nearest: steps"),
    (["--settings", "steps"], "'careful.steps' in --settings is no setting"),
    (["--settings", "uce.lamb=3"], "--settings has some of 'uce', but the method is 'careful'"),
    (["--settings", "ucee.lamb=3"], "unknown method or attack in settings 'ucee'; nearest: uce"),
    (["--seed", "-1"], "configuration key seed: "),
    (["--dtype", "float16"], "configuration key dtype: "),
    (["--device", "gpu"], "unknown device 'gpu'"),
    (["--model", "no such model"], "no model 'no such model'"),
    (["--concept-files", "missing.yaml"], "missing.yaml: No such file"),
    (["--out", "erasing_plugin.py"], "the output folder erasing_plugin.py cannot be written: "),
]


@pytest.mark.parametrize(("options", "wanted"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input_is_one_clear_line_before_any_work(
    options: Sequence[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_erase(*options) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and wanted in captured.err, captured.err
    assert {path.name for path in Path.cwd().iterdir()} - {"__pycache__"} == {"erasing_plugin.py"}


@pytest.mark.parametrize(("option", "near"), [("--methods", "--method"), ("--expotr", "--export")])
def test_an_option_that_is_not_there(option: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_erase(option, "x") == 2
    assert near in capsys.readouterr().err
    assert run_erase("--export", "onnx") == 2
    assert command("erase", "--method", "uce") == 2


def test_the_same_again_computes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_erase() == 0
    before = {name: (Path("out") / name).stat().st_mtime_ns for name in files()}
    monkeypatch.setattr("erasebench.stages.erase.run", lambda *_: pytest.fail("computed again"))
    capsys.readouterr()
    (Path("out") / "work").mkdir()  # a kill just before the end leaves it
    assert run_erase() == 0
    assert "careful church: erased before" in capsys.readouterr().out
    assert {name: (Path("out") / name).stat().st_mtime_ns for name in files()} == before


def test_a_folder_with_another_erasure_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_erase() == 0
    before = {name: (Path("out") / name).read_bytes() for name in files()}
    capsys.readouterr()
    for more in (["--concept", "nudity"], ["--seed", "1"], ["--settings", "steps=3"], ["--method", "uce"]):
        assert run_erase(*more) == 2
        assert capsys.readouterr().err == (
            "error: out already holds another erasure (careful of church); give another folder, or remove it\n"
        )
    assert {name: (Path("out") / name).read_bytes() for name in files()} == before


@pytest.mark.parametrize("name", ["erasure.safetensors", "work", "diffusers", "loss.png"])
def test_files_of_others_are_left_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path("out") / name / "mine").mkdir(parents=True)
    assert run_erase() == 2
    assert f"{Path('out') / name} is in the way" in capsys.readouterr().err
    assert files() == [name]


@pytest.mark.parametrize("how", first_quick(["kill", "stop", "break"]))
def test_an_erasure_goes_on_from_where_it_was(how: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(f"3-{how}").touch()
    code = in_a_child(run_erase)
    assert code == {"kill": -signal.SIGKILL, "stop": 130, "break": 3}[how]
    assert files() == ["erase.yaml", "work"] and "seconds" not in about()
    assert ("goes on from here" in capfd.readouterr().err) == (how == "stop")
    assert run_erase("--seed", "1") == 2
    assert "(careful of church, not finished)" in capfd.readouterr().err
    assert run_erase() == 0
    assert files() == ["erase.yaml", "erasure.safetensors", "loss.png", "trace.csv"]
    assert about()["resumed"] is True
    (up, _), *_ = Erasure.load(Path("out")).low_rank.values()
    assert torch.allclose(up, torch.tensor(0.4)), "it began with the fourth step"


def test_what_stopped_with_nothing_done_leaves_the_folder_free() -> None:
    Path("0-stop").touch()
    assert run_erase() == 130
    assert files() == []
    assert run_erase("--seed", "1") == 0


def test_training_that_diverges(capsys: pytest.CaptureFixture[str]) -> None:
    Path("2-diverge").touch()
    assert run_erase() == 3
    *_, said = capsys.readouterr().err.splitlines()
    assert said == "error: careful church: training diverged: the loss is nan at step 2"
    assert files() == [], "another learning rate may take the folder"


def test_a_method_that_raises(capfd: pytest.CaptureFixture[str]) -> None:
    Path("2-break").touch()
    assert run_erase() == 3
    error = capfd.readouterr().err
    assert "Traceback" in error and "erasing_plugin.py" in error
    assert error.splitlines()[-1].startswith("error: careful church: RuntimeError: ")


@pytest.mark.parametrize("low_rank", [True, False])
def test_an_exported_pipeline_is_the_erasure(low_rank: bool, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--settings", f"factored={low_rank}", "--export", "diffusers")
    assert run_erase(*more) == 0
    assert capsys.readouterr().out.endswith("; in out; exported to out/diffusers\n")
    model = loaded_model(planned("uce").source, "cpu", "float32")
    found = Checkpoint("out/diffusers").erase(model, [concept("church")], erase_context())
    with model.erased(Erasure.load(Path("out"))):
        wanted = state(model)
    with model.erased(found):
        assert differing(wanted, state(model)) == set()
    assert ("loss.png" in files()) == low_rank, "the other has no trace"
    assert ("record.safetensors" in files()) != low_rank
    (Path("out") / "diffusers" / "mark").touch()
    assert run_erase(*more) == 0
    assert (Path("out") / "diffusers" / "mark").exists(), "not written again"


@pytest.mark.parametrize("path", ["out", "out/erasure.safetensors"])
def test_what_erase_leaves_can_be_a_row(path: str) -> None:
    assert run_erase() == 0
    model = loaded_model(planned("uce").source, "cpu", "float32")
    assert (checkpoint.WEIGHTS, checkpoint.GUIDANCE) == (WEIGHTS, GUIDANCE)
    wanted, found = Erasure.load(Path("out")), Checkpoint(path).erase(model, [concept("church")], erase_context())
    assert found.low_rank.keys() == wanted.low_rank.keys() != set()
    with model.erased(wanted):
        expected = state(model)
    with model.erased(found):
        assert differing(expected, state(model)) == set()
    Path("out/erasure.safetensors").write_bytes(b"damaged")
    with pytest.raises(EraseBenchError, match=r"^out: "):
        Checkpoint(path).erase(model, [concept("church")], erase_context())


def test_a_rule_of_guidance_that_erase_leaves_can_be_a_row() -> None:
    model = loaded_model(planned("uce").source, "cpu", "float32")
    identities = []
    for method in ("sld-weak", "sld-max"):
        assert run_erase("--method", method, "--concept", "church,nudity", "--out", method) == 0
        found = Checkpoint(method).erase(model, [concept("church")], erase_context())
        assert found.guidance == Erasure.load(Path(method)).guidance is not None
        identities.append(Checkpoint(method).identity())
    assert identities[0] != identities[1], "their weights are the same: none"


def test_what_is_finished_can_be_exported_later(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_erase() == 0
    assert run_erase("--export", "lora") == 0
    assert capsys.readouterr().out.endswith(
        "erased before, 640 numbers changed; in out; exported to out/pytorch_lora_weights.safetensors\n"
    )
    model = loaded_model(planned("uce").source, "cpu", "float32")
    found = Checkpoint("out/pytorch_lora_weights.safetensors").erase(model, [concept("church")], erase_context())
    wanted = Erasure.load(Path("out")).low_rank
    assert set(found.low_rank) == set(wanted)
    for name, (up, down) in wanted.items():
        torch.testing.assert_close(torch.matmul(*found.low_rank[name]), up @ down)


def test_exports_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_erase("--export", "single-file") == 0
    assert capsys.readouterr().out.endswith("; in out; exported to out/model.safetensors\n")
    assert run_erase("--export", "kohya-lora") == 0
    assert capsys.readouterr().out.endswith("; exported to out/lora.safetensors: rank 2, exact\n")
    model = loaded_model(planned("uce").source, "cpu", "float32")
    with model.erased(Erasure.load(Path("out"))):
        wanted = state(model)
    for name in ("model.safetensors", "lora.safetensors"):
        found = Checkpoint(f"out/{name}").erase(model, [concept("church")], erase_context())
        with model.erased(found):
            for key, value in state(model).items():
                torch.testing.assert_close(value, wanted[key])


@pytest.mark.slow
def test_the_rank_of_an_approximation(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for rank in ("1", "7"):
        assert run_erase("--method", "esd-x[steps=1;sampling_steps=2]", "--export", "kohya-lora", "--rank", rank) == 0
        said.append(capsys.readouterr().out)
        assert f"exported to out/lora.safetensors: rank {rank}, relative error 0." in said[-1]
    errors = [float(line.partition("relative error ")[2].split(";")[0]) for line in said]
    assert errors[0] > errors[1] > 0
    assert run_erase("--export", "single-file", "--rank", "3", "--out", "other") == 2
    assert "a rank is for --export kohya-lora, not for single-file" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.parametrize("method", [name for name in METHODS.names() if name not in ("sd", "checkpoint")])
def test_every_method_can_be_planned_and_no_option_stands_for_a_table(method: str) -> None:
    parameters = planned(method).cell.spec["parameters"]
    # What these mean at None is said by other parts of the identity, or is that there is none.
    meant = {"erase_from", "anchor", "pool_seed", "time_budget", "forget_prompt"}
    assert {name for name, value in parameters.items() if value is None} <= meant


def test_a_folder_is_free_again_after_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Erasure.save

    def full(self: Erasure, folder: Path) -> None:
        save(self, folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Erasure, "save", full)
        assert run_erase() == 2
    assert "the disk of out is full" in capsys.readouterr().err
    assert run_erase() == 0


def test_an_erasure_that_cannot_be_exported_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    full = ("--settings", "factored=False")
    assert run_erase(*full, "--export", "lora") == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ") and "not low-rank: unet.mid_block" in said
    assert said.endswith("(the erasure itself is kept in out)")
    Erasure.load(Path("out"))
    assert about()["seconds"] >= 0
    assert not {"diffusers", "pytorch_lora_weights.safetensors"} & set(files())
    assert run_erase(*full) == 0
