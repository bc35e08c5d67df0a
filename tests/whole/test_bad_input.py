"""Bad input is one clear line and exit code 2, before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
ONE_CONCEPT = """concepts:
  one: {{kind: object, phrase: {}, views: {{picturebook: {{judge: picturebook-detector, label: church, naming: [x]}}}}}}
"""
ALIASES = "settings:\n  uce:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"    a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)
"""Ten billion texts and more, for who reads them all."""
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
        "invisible.csv": "prompt\n\u200b\n",
        "long.csv": f"prompt\n{'a' * 100_001}\n",
        "pair.csv": "prompt,prompt\na,b\n",
        "date.yaml": "seed: 2020-13-45",
        "tag.yaml": 'seed: !!int "abc"',
        "digits.yaml": f"seed: {'9' * 5000}",
        "nested.yaml": f"others: {'[' * 3000}{']' * 3000}",
        "preset.yaml": "preset: 5",
        "aliases.yaml": ALIASES,
        "itself.yaml": "settings: &a {uce: *a}",
        "repeated.yaml": "seed: 1\nseed: 2",
        "truth.yaml": "seed: true",
        "types.yaml": "prompts: many",
        "set.yaml": "methods: !!set {uce, salun}",
        "code.yaml": 'seed: !!python/object/apply:os.system ["true"]',
        "surrogate.yaml": 'concepts: ["phrase:\\ud800"]',
        "nul.yaml": 'retain_file: "a\\0b"',
        "blank.yaml": ONE_CONCEPT.format('"\\u200b\\u200b"'),
        "escape.yaml": ONE_CONCEPT.format('"\\e[31mred"'),
        "path.yaml": ONE_CONCEPT.format("x").replace("one:", '"../../one":'),
        "html.yaml": ONE_CONCEPT.format("x").replace("one:", '"<script>":'),
        "bad_input_exits.py": "import sys; sys.exit(0)",
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
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
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
    (["--config", "broken.yaml"], ["broken.yaml: line 2: not valid YAML"]),
    (["--config", "missing.yaml"], ["cannot read missing.yaml: No such file"]),
    (["--batch-size", "0"], ["configuration key batch_size: ", "greater than or equal to 1, not '0'"]),
    (["--batch-size", "many"], ["configuration key batch_size: ", "not 'many'"]),
    (["--patience", "0"], ["configuration key patience: ", "greater than or equal to 0.25, not '0'"]),
    (["--max-memory", "0"], ["configuration key max_memory: ", "greater than 0, not '0'"]),
    (["--max-memory", "8"], ["--max-memory is of a GPU, and this is on the CPU", "leave it out"]),
    (["--gradient-checkpointing", "yes"], ["configuration key gradient_checkpointing: ", "'auto', 'on' or 'off'"]),
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
    (["--model", "none.safetensors"], ["the model none.safetensors does not exist"]),
    (["--model", "concepts.yaml"], ["concepts.yaml is no .safetensors file"]),
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
    (["--config", "date.yaml"], ["date.yaml: not valid YAML: month must be in 1..12"]),
    (["--config", "tag.yaml"], ["tag.yaml: not valid YAML: invalid literal for int()"]),
    (["--config", "digits.yaml"], ["digits.yaml: not valid YAML: a number of too many digits"]),
    (["--config", "nested.yaml"], ["nested.yaml: line 1: "]),
    (["--config", "preset.yaml"], ["preset.yaml: preset: expected a name, not 5"]),
    (["--config", "aliases.yaml"], ["aliases.yaml: line 8: aliases stand for more than 1,000,000 values"]),
    (["--config", "itself.yaml"], ["itself.yaml: line 1: an alias leads to itself"]),
    (["--config", "repeated.yaml"], ["repeated.yaml: line 2: 'seed' is given twice"]),
    (["--config", "truth.yaml"], ["configuration key seed: input should be a number, not True"]),
    (["--config", "truth.yaml", "--seed", "1"], ["configuration key seed: input should be a number, not True"]),
    (["--config", "types.yaml"], ["configuration key prompts: ", "not 'many'"]),
    (["--config", "set.yaml"], ["set.yaml: line 1: the tag !!set is not read here"]),
    (["--config", "code.yaml"], ["code.yaml: line 1: the tag !!python/object/apply:os.system is not read here"]),
    (["--config", "surrogate.yaml"], ["surrogate.yaml: line 1: not valid YAML"]),
    (["--config", "nul.yaml"], ["configuration key retain_file: the text 'a\\x00b' holds a control character, U+0000"]),
    (["--config", "pipe"], ["cannot read pipe: it is a pipe or a device"]),
    (["--concept-files", "pipe"], ["cannot read pipe: it is a pipe or a device"]),
    (["--retain-file", "pipe"], ["cannot read pipe: it is a pipe or a device"]),
    (["--suite", "loop.yaml"], ["cannot read loop.yaml"]),
    (
        ["--store", "loop"],
        ["the store loop cannot be written: Too many levels of symbolic links; remove the link"],
    ),
    (["--store", "loop/store"], ["the store loop/store cannot be written: Too many levels of symbolic links"]),
    (["--out", "loop"], ["the output folder loop cannot be written: Too many levels of symbolic links"]),
    (["--store", "a" * 300], ["cannot be written: File name too long; name a shorter one"]),
    (["--seed", "9" * 5000], ["configuration key seed: ", "exceeded maximum size, not '99999", "..."]),
    (["--methods", "uce[lamb=2020-13-45]"], ["'2020-13-45' is no value of an option"]),
    (["--methods", f"uce[lamb={'9' * 5000}]"], ["... is no value of an option", "too many digits"]),
    (["--methods", f"uce[lamb={'{a: ' * 3000}{'}' * 3000}]"], ["... is no value of an option"]),
    (["--methods", "esd-x[steps=true]"], ["method esd-x[steps=true]: steps: Input should be a number, not True"]),
    (["--settings", "uce.lamb=1,uce.lamb=2"], ["--settings gives uce.lamb twice"]),
    (["--judges", "resnet50=a,resnet50=b"], ["--judges gives resnet50 twice"]),
    (["--concepts", "phrase:\udcff"], ["configuration key concepts: the text 'phrase:\\udcff' is no valid Unicode"]),
    (["--concepts", "phrase:\x1b[31mred"], ["the text 'phrase:\\x1b[31mred' holds a control character, U+001B"]),
    (["--concepts", "phrase:\u200b\u2060\u3164"], ["has no words; write for example"]),
    (["--concepts", f"phrase:{'a' * 1001}"], ["a phrase of 1,001 characters; 1,000 at most"]),
    (["--concepts", "+".join(["church"] * 3000)], ["the concept 'church+church", "names church twice"]),
    (["--concept-files", "blank.yaml"], ["blank.yaml: concept 'one': phrase: an empty text"]),
    (["--concept-files", "escape.yaml"], ["concepts: one: phrase: the text '\\x1b[31mred' holds a control character"]),
    (["--concept-files", "path.yaml"], ["concept '../../one': a name is lower case with hyphens"]),
    (["--concept-files", "html.yaml"], ["concept '<script>': a name is lower case with hyphens"]),
    (["--concept-files", "aliases.yaml"], ["aliases.yaml: line 8: aliases stand for more than"]),
    (["--retain-file", "invisible.csv"], ["invisible.csv: prompt 1 of those that are read is empty"]),
    (["--retain-file", "long.csv"], ["long.csv: prompt 1 has 100,001 characters; 100,000 at most"]),
    (["--retain-file", "pair.csv"], ["pair.csv has two columns 'prompt'"]),
    (["--retain-file", "nul.csv"], ["nul.csv holds NUL bytes"]),
    (["--plugins", "bad_input_exits.py"], ["bad_input_exits.py cannot be loaded: SystemExit: 0"]),
]


@pytest.mark.parametrize(("options", "wanted"), BAD, ids=[ascii(" ".join(options))[1:60] for options, _ in BAD])
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


@pytest.mark.parametrize("where", ["check", "resolved", "identity"])
def test_a_plug_in_that_ends_the_program_while_a_run_is_planned(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = f"    def {where}(self, *_):\n        raise SystemExit(0)\n"
    (tmp_path / "bad_input_plugin.py").write_text(f"{PLUGIN}\n{ends}")
    options = ("--plugins", "bad_input_plugin.py", "--methods", "bad-input-number")
    assert command("plan", *TINY, *places(tmp_path), *options) == 2
    assert capsys.readouterr().err == "error: a plug-in ended the command by sys.exit(0)\n"


def test_ctrl_c_while_a_run_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad_input_raises.py").write_text("raise KeyboardInterrupt")
    assert command("plan", *TINY, *places(tmp_path), "--plugins", "bad_input_raises.py") == 130
    assert capsys.readouterr().err == "\nstopped; the same command goes on from here\n"


def checkpoints() -> dict[str, tuple[dict[Any, Any], str]]:
    import torch

    name = "unet.conv_in.bias"
    one = torch.zeros(1)
    return {
        "whole": ({name: torch.zeros(32, dtype=torch.int64)}, "holds 32 numbers of type int64; weights are floating"),
        "complex": ({name: torch.zeros(32, dtype=torch.complex64)}, "numbers of type complex64"),
        "sparse": ({name: torch.zeros(32).to_sparse()}, "is a sparse, quantized or empty tensor"),
        "expanded": ({name: one.expand(10**9)}, r"holds fewer numbers than its shape, [1000000000]"),
        "keys": ({7: one}, "something under the key 7, which is no name"),
        "inner": ({"state_dict": {7: one}}, "something under the key 7, which is no name"),
        "nan": ({name: torch.full((32,), torch.nan)}, "holds NaN or infinite numbers"),
        "shape": ({name: one}, "has shape [1], the model's"),
        "name": ({"conv_inn.bias": one}, "the model has no parameter 'conv_inn.bias'; the nearest is"),
        "nothing": ({}, "holds no tensors"),
        "lora": ({"unet.conv_in.lora_A.weight": one, "unet.conv_in.lora_B.weight": one}, "which are no matrices"),
    }


@pytest.mark.parametrize("name", checkpoints())
def test_a_checkpoint_is_refused_before_any_work(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    content, message = checkpoints()[name]
    torch.save(content, tmp_path / f"{name}.pt")
    assert command("plan", *TINY, *places(tmp_path), "--methods", f"checkpoint[path={name}.pt]") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and f"{name}.pt" in said and message in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("header.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        ("json.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
        ("offsets.safetensors", b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(76)),
        ("empty.safetensors", b""),
        ("zip.pt", b"PK\x03\x04" + bytes(60)),
        ("pickle.pt", b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."),
        ("text.bin", b"hello"),
    ],
)
def test_a_damaged_checkpoint_is_refused_before_any_work(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert command("plan", *TINY, *places(tmp_path), "--methods", f"checkpoint[path={name}]") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {name} ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "redirection",
    [
        "2>&-",
        ">/dev/full 2>/dev/full",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("2>/dev/full", ">&- 2>&-")),
    ],
)
def test_a_standard_error_that_is_closed_or_full_changes_no_exit_code(redirection: str, tmp_path: Path) -> None:
    for pattern, code in (("nothing-of-this-name", 2), ("uce", 2 if redirection[:10] == ">/dev/full" else 0)):
        line = f"{sys.executable} -m erasebench list methods {pattern} {redirection}"
        assert subprocess.run(line, shell=True, cwd=tmp_path, check=False).returncode == code


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
    """What planning reads of a model: names of parts and of files, and sizes."""
    parts = ("unet", "text_encoder", "vae", "tokenizer", "scheduler")
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").touch()
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
