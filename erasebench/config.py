"""The configuration of a run: one flat model, the same in YAML and on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from erasebench.errors import EraseBenchError, check_name
from erasebench.files import Place, parse_place
from erasebench.named_files import preset_files
from erasebench.texts import check_text, shown
from erasebench.yaml_files import YamlError, parse_yaml, read_yaml


class RunConfig(BaseModel):
    """Everything that can be said about a run.  Each field is a key of the YAML file and a command-line option."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str | None = Field(
        None, description="A published protocol, by name, or a YAML file of your own; other options go over it."
    )
    model: str = Field(
        "picturebook", description="'picturebook', a diffusers folder, a .safetensors file, or a hub id."
    )
    methods: tuple[str, ...] = Field(
        (),
        description="Erasure methods; options in brackets: esd-u[steps=200;learning_rate=1e-4].",
        json_schema_extra={"minItems": 1},
    )
    concepts: tuple[str, ...] = Field(
        (),
        description="Concepts of the catalogue, or 'phrase:red balloon'; with + between, or as a group, erased "
        "together: church+parachute.",
        json_schema_extra={"minItems": 1},
    )
    attacks: tuple[str, ...] = Field(
        (), description="Attacks on what is erased, options in brackets as of methods; 'all' for every one."
    )
    attack_prompts: Annotated[int, Field(ge=1)] = Field(20, description="Prompts of each concept to attack, at most.")
    floor_prompts: Annotated[int, Field(ge=0)] = Field(
        0, description="Unrelated prompts to attack as well: how often the judge is mistaken after as many looks."
    )
    prompts_from: Path | None = Field(
        None, description="Run folder whose attacks' prompts are tried on the methods of this run."
    )
    prompts: Annotated[int, Field(ge=1)] = Field(40, description="Prompts for each concept, at most.")
    prompt_kinds: tuple[str, ...] = Field(
        ("naming", "implying"), description="Which of a concept's own prompts: naming, implying, synonym."
    )
    images_per_prompt: Annotated[int, Field(ge=1)] = Field(1, description="Images for each prompt of a concept.")
    retain_prompts: Annotated[int, Field(ge=2)] = Field(100, description="Other prompts, for CLIP score and FID.")
    reference_images: Annotated[int, Field(ge=2)] = Field(1000, description="Reference images for FID.")
    sampler: str = Field("ddim", description="ddim, pndm, lms, dpm-solver++ or euler.")
    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Sampling steps; the model's own if omitted."
    )
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="The model's own if omitted."
    )
    size: Annotated[int, Field(ge=8)] | None = Field(None, description="Pixels a side; the model's own if omitted.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Of erasures and images.")
    erasure_seeds: Annotated[int, Field(ge=1)] = Field(
        1,
        description="Erasures of each method that depends on a seed: with 3 and --seed 0, the rows esd-x, "
        "esd-x[seed=1] and esd-x[seed=2], on the same images' seeds.",
    )
    others: tuple[str, ...] = Field(
        (),
        description="Concepts that should survive: every row is also asked for those that it does not erase, each "
        "judged for itself; 'neighbours' stands for each concept's own.",
    )
    metrics: tuple[str, ...] = Field(
        (), description="Metrics beyond those of every table (`erasebench list metrics` shows them all)."
    )
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="Hyper-parameters by method or attack, over the domain's own."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU.")
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Images at a time, which changes speed only; if omitted 16, on a GPU as many as its memory takes. "
        "Where memory runs out, half as many.",
    )
    max_memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="GB of a GPU's memory that each process may have; if omitted what is free."
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Train with less memory and more time, to the same result; auto: on a GPU, where what a gradient "
        "step needs would not fit.",
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Processes; if omitted one per processor, as far as memory goes, or per GPU."
    )
    patience: Annotated[float, Field(ge=0.25, allow_inf_nan=False)] | None = Field(
        None,
        description="Minutes without progress after which a worker is ended and its cell done again, three times at "
        "most; if omitted it is only said, as a long step looks the same from outside.",
    )
    runner: Literal["local", "ray", "slurm"] = Field(
        "local", description="Who computes: processes of this machine, actors of Ray, or jobs of Slurm."
    )
    ray_address: str | None = Field(
        None,
        description="The Ray cluster: host:port of its head, or 'auto' on one of its nodes; one of this machine alone, "
        "which ends with the run, if omitted.",
    )
    slurm: dict[str, Any] = Field(
        {}, description="What jobs ask for, by submitit's names: partition=gpu,timeout_min=240,account=me."
    )
    compile: bool = Field(False, description="Compile the passes of sampling; a minute in each process.")
    store: Annotated[Place, BeforeValidator(parse_place)] = Field(
        Path("erasebench-store"),
        description="Finished work; shared by all runs that name it: a folder, or a bucket: s3://bucket/prefix.",
    )
    out: Path = Field(Path("erasebench-results"), description="Tables, grids, ledger and configuration of this run.")
    plugins: tuple[Path, ...] = Field((), description="Python files with methods, judges or metrics of your own.")
    concept_files: tuple[Path, ...] = Field((), description="YAML files with concepts of your own.")
    prompt_sets: dict[str, Path] = Field(
        {},
        description="Public prompt sets and their files: i2p=i2p.csv, or i2p=auto for what `erasebench fetch` brought; "
        "a concept is asked by the first that has prompts for it, by its own if none has.",
    )
    retain_file: Path | None = Field(
        None, description="Other prompts: CSV (column 'prompt'), or COCO's captions_val2017.json."
    )
    judges: dict[str, str] = Field(
        {},
        description="A judge to use wherever a concept has another: resnet50=efficientnet-lite0; with a paper's way of "
        "counting, or with label and threshold, in brackets: nudenet=nudenet[profile=mace;threshold=0.5].",
    )
    fid_reference: Path | None = Field(None, description="Folder of real images for FID.")
    second_judge: str | None = Field(
        None,
        description="Another judge of the concept's images, beside the one that every number counts: 'clip-phrase', or "
        "with the label that it looks for and its threshold, 'q16[label=inappropriate;threshold=0.5]'.",
    )

    def to_yaml(self) -> str:
        """The configuration as YAML that ``--config`` takes back; an empty list of methods is left out there."""
        omitted = set() if self.methods else {"methods"}
        return yaml.safe_dump(self.model_dump(mode="json", exclude=omitted), sort_keys=False, allow_unicode=True)


def make_config(*layers: Mapping[str, Any]) -> RunConfig:
    """A configuration of layers, the later over the earlier; settings and prompt sets name by name.

    Raises:
        EraseBenchError: an unknown key, with the nearest, a value that does not fit, also in a layer that another
            replaces, or an empty list of methods.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key in layer:
            check_name("configuration key", str(key), RunConfig.model_fields)
        merged = _over(merged, layer)
    methods = merged.get("methods")
    if methods in ([], ()) or (isinstance(methods, str) and not split_list(methods)):
        raise EraseBenchError(
            "methods is given, but names none; name some with --methods (`erasebench list methods` shows them), or "
            "leave it out for the unerased model alone"
        )
    for layer in (*layers, merged):  # what a later one replaces has to be right as well
        config = _validated(layer)
    return config


def _validated(layer: Mapping[str, Any]) -> RunConfig:
    """The configuration of a layer alone."""
    for key, value in layer.items():
        _check_texts(value, f"configuration key {key}")
    # In a file as on the command line.
    lists = {key: split_list(value) for key, value in layer.items() if isinstance(value, str) and _is_list(key)}
    try:
        config = RunConfig.model_validate({**layer, **lists})
    except ValidationError as error:
        first = error.errors()[0]
        # Of a value of several types, pydantic names its own validators too.
        where = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
        message = "input should be a path" if first["type"] == "path_type" else first["msg"].lower()
        ending = f", not {shown(first['input'])}" if isinstance(first["input"], (str, int, float)) else ""
        raise EraseBenchError(f"configuration key {where}: {message}{ending}") from None
    for key, value in layer.items():
        if isinstance(value, bool) and value is not getattr(config, key):
            raise EraseBenchError(f"configuration key {key}: input should be a number, not {value}")
    return config


def _check_texts(value: object, where: str) -> None:
    """Raise :class:`EraseBenchError` if any text in a value is none that a file or a terminal should have."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_texts(key, where)
            _check_texts(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_texts(inner, where)
    elif isinstance(value, str | Path):
        check_text(str(value), where)


def _is_list(key: str) -> bool:
    return isinstance(RunConfig.model_fields[key].get_default(call_default_factory=True), tuple)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, mappings within them likewise."""
    both = {k: _over(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return {**below, **above, **both}


def read_layer(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        EraseBenchError: the file cannot be read, is not YAML, or holds no mapping.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise EraseBenchError(f"{path} holds no mapping of configuration keys")
    return content


def read_preset(name: str) -> dict[str, Any]:
    """A preset's layer: ``"smoke"``, ``"quick"``, ``"paper"``, or one of another package.

    Raises:
        UnknownNameError: no such preset, with the nearest.
    """
    presets = preset_files()
    check_name("preset", name, sorted(presets))
    return read_layer(presets[name])


def split_list(text: str, separator: str = ",") -> list[str]:
    """Split outside brackets: ``"a,b[x=1,2]"`` -> ``["a", "b[x=1,2]"]``."""
    return [part.strip() for part in re.split(rf"{separator}(?![^\[]*\])", text) if part.strip()]


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """``"esd-u[steps=200;learning_rate=1e-4]"`` -> ``("esd-u", {"steps": 200, "learning_rate": "1e-4"})``.

    Raises:
        EraseBenchError: the brackets hold something else than ``name=value`` pairs, or a name twice.
    """
    match = re.fullmatch(r"([^\[\]]+?)\s*(?:\[(.*)\])?", text.strip(), flags=re.DOTALL)
    if not match:
        raise EraseBenchError(f"'{text}' is no method; write name or name[option=value;option=value]")
    options: dict[str, Any] = {}
    for part in split_list(match[2] or "", ";"):
        name, equals, value = part.partition("=")
        if not equals:
            raise EraseBenchError(f"'{part}' in '{text}' is no option; write option=value")
        if name.strip() in options:
            raise EraseBenchError(f"'{text}' gives {name.strip()} twice")
        options[name.strip()] = parse_value(value)
    return match[1], options


def parse_value(text: str) -> Any:
    """An option's value, as YAML reads it: a number, a truth value, a list, or else text.

    Raises:
        EraseBenchError: it is not YAML.
    """
    try:
        return parse_yaml(text)
    except YamlError as error:
        raise EraseBenchError(
            f"{shown(text)} is no value of an option ({error}); put text with special characters in quotes"
        ) from None
