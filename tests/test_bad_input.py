"""Bad input is one clear line and exit code 2, before any work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.engine.runs import PROMPT_SET_CONCEPT, TINY, command, forget_plugins, places

CONCEPTS = (
    PROMPT_SET_CONCEPT
    + """\
  good: {kind: object, phrase: good, views: {picturebook: {judge: picturebook-detector, label: church, naming: [x]}}}
  typo: {kind: object, phrase: typo, views: {picturebook: {judge: picturebook-detector, label: chuch, naming: [x]}}}
  style: {kind: style, phrase: style, views: {picturebook: {judge: picturebook-style, label: crayn, naming: [x]}}}
  judge: {kind: object, phrase: judge, views: {picturebook: {judge: picturebook-detecter, label: a, naming: [x]}}}
  photo: {kind: object, phrase: photo, views: {photo: {judge: resnet50, label: church, naming: [x]}}}
"""
)
PLUGIN = """
from dataclasses import dataclass
from erasebench.plugins import Method
from erasebench.registry import METHODS

@METHODS.register("bad-input-number")
@dataclass(frozen=True)
class Number(Method):
    x: float = 1.0

    def erase(self, model, concepts, context):
        raise AssertionError
"""
OLD = """
from dataclasses import dataclass
from erasebench.registry import METHODS

@METHODS.register("bad-input-old")
@dataclass(frozen=True)
class Old:
    x: float = 1.0

    def why_not(self, domain, concepts):
        return None

    def erase(self, model, concepts, context):
        raise AssertionError
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files to refer to; what plug-ins register is forgotten."""
    monkeypatch.chdir(tmp_path)
    files = {
        "concepts.yaml": CONCEPTS,
        "bad_input_plugin.py": PLUGIN,
        "bad_input_raises.py": "import nothing_of_this_name",
        "bad_input_takes.py": PLUGIN.replace("bad-input-number", "uce"),
        "bad_input_old.py": OLD,
        "bad_input_lacks.py": PLUGIN.replace("def erase(", "def eraze("),
        "key.yaml": "metods: [uce]",
        "list.yaml": "plugins: {uce: 1}",
        "broken.yaml": "methods: [",
        "columns.csv": "prompts,tags,seed\na,dark,1\n",
        "seeds.csv": "text,tags,seed\na,dark,one\n",
        "other.csv": "text,tags,seed\na,light,1\n",
        "empty.csv": "text,tags,seed\n",
        "blank.csv": "text,tags,seed\na,dark,1\n ,dark,2\n",
        "short.csv": "id,prompt\n1\n",
        "captions.csv": "caption\na dog\n",
        "twice.csv": "text,tags,seed,text\na,dark,1,b\n",
        "open.csv": 'text,tags,seed\na,dark,1\n"b,dark,2\n',
        "commas.csv": "prompt,seed\na dog, asleep,1\n",
        "nul.csv": "prompt\na\0dog\n",
        "latin.csv": "prompt\ncaf\udce9\n",
        "nothing.csv": "",
        "cut.json": '{"annotations": [{"image_id": 1, "id"',
        "other.json": '{"images": []}',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    yield
    forget_plugins()


OWN = ("--concept-files", "concepts.yaml")
BAD: list[tuple[Sequence[str], Sequence[str]]] = [
    (["--methods", "ucee"], ["unknown method 'ucee'; nearest: uce"]),
    (["--concepts", "chuch"], ["unknown concept 'chuch'; nearest: church"]),
    (["--concepts", ""], ["no concepts; name some with --concepts"]),
    (["--concepts", " , "], ["no concepts; name some with --concepts"]),
    (["--methods", ""], ["methods is given, but names none; name some with --methods", "the unerased model alone"]),
    (["--methods", " , "], ["methods is given, but names none"]),
    (["--concepts", "phrase: "], ["has no words"]),
    (["--preset", "smok"], ["unknown preset 'smok'; nearest: smoke"]),
    (["--sampler", "ddin"], ["unknown sampler 'ddin'; nearest: ddim"]),
    (["--config", "key.yaml"], ["unknown configuration key 'metods'; nearest: methods"]),
    (["--config", "list.yaml"], ["configuration key plugins: input should be a valid tuple"]),
    (["--config", "broken.yaml"], ["broken.yaml is not YAML"]),
    (["--config", "missing.yaml"], ["cannot read missing.yaml: No such file"]),
    (["--batch-size", "0"], ["configuration key batch_size: ", "greater than or equal to 1, not '0'"]),
    (["--batch-size", "many"], ["configuration key batch_size: ", "not 'many'"]),
    (["--prompts", "0"], ["configuration key prompts: "]),
    (["--steps", "1001"], ["configuration key steps: "]),
    (["--seed", "-1"], ["configuration key seed: "]),
    (["--guidance-scale", "nan"], ["configuration key guidance_scale: "]),
    (["--guidance-scale", "inf"], ["configuration key guidance_scale: "]),
    (["--size", "50"], ["size must be a multiple of", "not 50"]),
    (["--dtype", "float16"], ["configuration key dtype: ", "'float32' or 'bfloat16'"]),
    (["--device", "gpu"], ["unknown device 'gpu'"]),
    (["--model", "no such model"], ["no model 'no such model'"]),
    (["--model", "."], ["is no diffusers pipeline"]),
    (["--methods", "uce[lam=1]"], ["method uce[lam=1]: unknown hyper-parameter 'lam'; nearest: lamb"]),
    (["--methods", "uce[lamb=-1]"], ["method uce[lamb=-1]: ", "lamb"]),
    (["--methods", "uce[lamb=big]"], ["method uce[lamb=big]: lamb: ", "valid number"]),
    (["--methods", "uce[lamb]"], ["'lamb' in 'uce[lamb]' is no option; write option=value"]),
    (["--methods", "uce[lamb={]"], ["'{' is no value of an option"]),
    (["--methods", "uce[lamb=1"], ["is no method; write name or name[option=value"]),
    (["--methods", "esd-x[steps=0]"], ["method esd-x[steps=0]: steps: ", "greater than or equal to 1, not 0"]),
    (["--methods", "checkpoint"], ["method checkpoint: path: "]),
    (["--methods", "checkpoint[path=missing.safetensors]"], ["the checkpoint missing.safetensors does not exist"]),
    (["--settings", "ucee.lamb=1"], ["unknown method or attack in settings 'ucee'; nearest: uce"]),
    (["--settings", "uce.lam=1"], ["method uce: unknown hyper-parameter 'lam'; nearest: lamb"]),
    (["--settings", "lamb=1"], ["'lamb' in --settings is no setting; write method.option=value"]),
    (["--settings", "uce.lamb"], ["'uce.lamb' in --settings is no setting; write method.option=value"]),
    (["--plugins", "missing.py"], ["the plug-in file missing.py does not exist"]),
    (["--plugins", "key.yaml"], ["the plug-in file key.yaml does not exist or is no Python file"]),
    (["--plugins", "bad_input_raises.py"], ["bad_input_raises.py cannot be loaded: ModuleNotFoundError"]),
    (["--plugins", "bad_input_takes.py"], ["two methods are called 'uce'"]),
    (
        ["--plugins", "bad_input_old.py"],
        ["the method 'bad-input-old'", "Old", "does not inherit from erasebench.plugins.Method"],
    ),
    (["--plugins", "bad_input_lacks.py"], ["'bad-input-number'", "lacks what erasebench.plugins.Method", ": erase"]),
    (
        ["--plugins", "bad_input_plugin.py", "--methods", "bad-input-number[x=.nan]"],
        ["x: ", "finite number, not nan"],
    ),
    ([*OWN, "--concepts", "good,typo"], ["unknown label of the judge picturebook-detector 'chuch'; nearest: church"]),
    ([*OWN, "--concepts", "style"], ["unknown label of the judge picturebook-style 'crayn'; nearest: crayon"]),
    ([*OWN, "--concepts", "judge"], ["unknown judge 'picturebook-detecter'; nearest: picturebook-detector"]),
    ([*OWN, "--concepts", "photo"], ["'photo' has no judge and no prompts in the domain 'picturebook'", "in: photo"]),
    ([*OWN, "--concepts", "mine"], ["'mine' are needed", "https://example.org/mine", "--prompt-sets mine=FILE.csv"]),
    (["--concept-files", "missing.yaml"], ["missing.yaml: No such file"]),
    (["--concept-files", "key.yaml"], ["key.yaml: unknown key 'metods'"]),
    (["--judges", "resnet50"], ["'resnet50' in --judges names no judge; write name=judge"]),
    (["--judges", "nudenet=nudenet[profile=mice]"], ["unknown profile of the judge nudenet 'mice'; nearest: mace"]),
    (["--judges", "picturebook-detector=picturebook-distance"], ["picturebook-distance compares images with those of"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine"], ["'mine' in --prompt-sets names no file; write name=file"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=no.csv"], ["cannot read no.csv: No such file"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=empty.csv"], ["empty.csv holds no rows"]),
    (
        [*OWN, "--concepts", "mine", "--prompt-sets", "mine=columns.csv"],
        ["columns.csv has no column 'text', but prompts, tags, seed"],
    ),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=seeds.csv"], ["column seed of seeds.csv holds no seed"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=other.csv"], ["'mine' has no prompts"]),
    (
        [*OWN, "--concepts", "mine", "--prompt-sets", "mine=blank.csv"],
        ["blank.csv: prompt 2 of those that are read"],
    ),
    (["--retain-file", "short.csv"], ["short.csv: prompt 1 of those that are read is empty"]),
    (["--prompt-sets", "mien=empty.csv"], ["unknown prompt set 'mien'"]),
    ([*OWN, "--prompt-sets", "mien=empty.csv"], ["unknown prompt set 'mien'; nearest: mine"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=twice.csv"], ["twice.csv has two columns 'text'"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=open.csv"], ["open.csv, after row 1: ", "mark is left open"]),
    ([*OWN, "--concepts", "mine", "--prompt-sets", "mine=."], ["cannot read .: Is a directory"]),
    (["--prompt-sets", "i2p=auto"], ["the prompts 'i2p' are needed", "get them by `erasebench fetch i2p`"]),
    (["--prompt-sets", "unlearncanvas=short.csv"], ["are part of erasebench: write unlearncanvas=auto"]),
    (["--retain-file", "."], ["cannot read .: Is a directory"]),
    (["--retain-file", "commas.csv"], ["commas.csv: row 1 has more columns than the header"]),
    (["--retain-file", "nul.csv"], ["nul.csv holds NUL bytes"]),
    (["--retain-file", "latin.csv"], ["latin.csv is not text in UTF-8: ", "at byte 10"]),
    (["--retain-file", "nothing.csv"], ["nothing.csv holds no rows"]),
    (["--retain-file", "cut.json"], ["cut.json is not JSON, or is cut short"]),
    (["--retain-file", "other.json"], ["other.json is no file of COCO's captions"]),
    (["--retain-file", "missing.json"], ["cannot read missing.json: No such file"]),
    (["--retain-file", "missing.csv"], ["cannot read missing.csv"]),
    (["--retain-file", "captions.csv"], ["captions.csv has no column 'prompt', but caption"]),
    (["--fid-reference", "missing"], ["there is no folder missing of reference images"]),
    (["--second-judge", "clip-phrse"], ["unknown judge 'clip-phrse'; nearest: clip-phrase"]),
    (
        ["--second-judge", "picturebook-q16"],
        [
            "picturebook-q16 cannot judge the concept 'church'",
            "'church'; known: inappropriate",
            "picturebook-q16[label=",
        ],
    ),
    (["--second-judge", "clip"], ["clip cannot judge the concept 'church'", "known: clip"]),
    (
        ["--second-judge", "picturebook-style[label=crayn]"],
        ["picturebook-style cannot judge", "'crayn'; nearest: crayon"],
    ),
    (["--second-judge", "picturebook-distance[label=distance]"], ["cannot judge them alone"]),
    (["--second-judge", "picturebook-detector"], ["is the first judge of the concept 'church' already"]),
    (["--second-judge", "picturebook-detector[label=house]"], ["is the first judge of the concept 'church' already"]),
    (
        ["--concepts", "phrase:red ball", "--second-judge", "clip-phrase"],
        ["first judge of the concept 'phrase:red ball'"],
    ),
    (["--second-judge", "resnet50"], ["resnet50", "are needed and not part of erasebench", "get them by: "]),
    (["--second-judge", "clip-phrase[treshold=1]"], ["unknown option of the second judge", "nearest: threshold"]),
    (["--second-judge", "clip-phrase[threshold=high]"], ["the threshold is 'high', which is no number"]),
    (["--second-judge", "clip-phrase[threshold=.nan]"], ["the threshold is nan, which is no number"]),
    (["--second-judge", "clip-phrase[label=3]"], ["the label is 3, which is no text"]),
    (["--second-judge", "clip-phrase[label"], ["is no method; write name or name[option=value"]),
    (["--prompt-sets", "i2p=missing.csv"], ["cannot read missing.csv: No such file"]),
    (["--settings", "dm2.bogus=4"], ["method dm2: unknown hyper-parameter 'bogus'"]),
    (["--methods", "uce[lamb=1;lamb=2]"], ["'uce[lamb=1;lamb=2]' gives lamb twice"]),
    (["--out", "store/results", "--store", "store"], ["the output folder store/results lies in the store store"]),
]


@pytest.mark.parametrize(("options", "wanted"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input_is_one_clear_line_before_any_work(
    options: Sequence[str], wanted: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    assert command("run", *TINY, *places(tmp_path), *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    for part in wanted:
        assert part in captured.err
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == before


@pytest.mark.parametrize("empty", ["[]", "''"])
@pytest.mark.parametrize(
    ("key", "message"), [("methods", "methods is given, but names none; "), ("concepts", "no concepts; name some")]
)
def test_an_empty_list_in_a_file_is_no_run_of_the_baseline(
    key: str, message: str, empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = {"methods": "[uce]", "concepts": "[church]", key: empty}
    (tmp_path / "empty.yaml").write_text("".join(f"{name}: {value}\n" for name, value in lists.items()))
    assert command("run", "--config", "empty.yaml", *places(tmp_path)) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_an_option_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "--batchsize", "3") == 2
    assert "--batch-size" in capsys.readouterr().err


def test_out_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", *TINY, *places(tmp_path), "--out", "concepts.yaml") == 2
    assert capsys.readouterr().err == (
        "error: the output folder concepts.yaml cannot be written: File exists; remove what is there, or name another "
        "place\n"
    )
    assert not (tmp_path / "store").exists()


def photo_model(folder: Path) -> Path:
    """What planning reads of a model: names of parts and their sizes."""
    parts = ("unet", "text_encoder", "vae", "tokenizer", "scheduler")
    for part in parts:
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({part: [] for part in parts}))
    (folder / "unet" / "config.json").write_text(json.dumps({"in_channels": 4, "out_channels": 4}))
    return folder


def test_photographs_need_other_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(photo_model(tmp_path / "model"))
    assert command("run", *TINY, *places(tmp_path), "--model", model, "--concepts", "church") == 2
    message = capsys.readouterr().err
    assert "no other prompts for the domain 'photo'" in message and "--retain-file" in message
    assert command("run", *TINY, *places(tmp_path), "--model", model, "--concepts", "paul-marsh") == 2
    assert "'paul-marsh' has no judge and no prompts in the domain 'photo'" in capsys.readouterr().err
