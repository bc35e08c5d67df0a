"""Suites: a paper's protocol as data, a layer of the configuration with the table that it yields.

A suite is a YAML file, one of this package (``benchmarks/suites/`` in the repository), of another package, in the
entry-point group ``erasebench.suites``, or of the user.  It runs at two scales: ``paper``, on the paper's own model,
and ``quick``, on Picturebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from erasebench.concepts import load_catalogue
from erasebench.config import RunConfig, make_config, read_layer, read_preset
from erasebench.domains import Domain, domain_of_model
from erasebench.errors import EraseBenchError, check_name
from erasebench.named_files import suite_files
from erasebench.registry import load_file
from erasebench.texts import shown

FILE = "suite.yaml"
"""A suite's file in the folder of its run."""
Scale = Literal["paper", "quick"]
SCALES: tuple[Scale, ...] = ("paper", "quick")


class TableLayout(BaseModel):
    """The paper's table: a row a method.

    Attributes:
        columns: what stands across, the outer headings first: ``metric``, and ``concept`` or ``attack``.  Without
            ``concept`` there is a row for each method and concept.  A metric of attacks has a column for each of them.
        metrics: names of metrics, in the order of the columns.
        average: add the mean over concepts of each column, where all of them have a value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[Literal["concept", "attack", "metric"], ...] = ("concept", "metric")
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]
    average: bool = False

    @field_validator("columns")
    @classmethod
    def _has_metrics(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if len(columns) != 2 or len(set(columns)) != 2 or "metric" not in columns:
            raise ValueError("columns are metric, and concept or attack beside it")
        return columns


class Suite(BaseModel):
    """A published protocol.

    Attributes:
        title: one line.
        paper: a file of the published numbers, without its ending; ``tables`` those of its tables that the suite is of.
        protocol: what the paper did, with section.
        unverified: what the paper does not say and this project chose.
        unavailable: columns or parts of the paper's table that cannot be had, and why.
        all: keys of the configuration at both scales.
        paper_scale: those over the preset ``paper``; ``quick_scale`` those over the preset ``quick``.
        stand_ins: by concept of the paper, the one that is measured in its place at quick scale.
        table: the paper's layout.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Annotated[str, Field(min_length=1)]
    paper: str | None = None
    tables: tuple[str, ...] = ()
    protocol: Annotated[str, Field(min_length=1)]
    unverified: tuple[str, ...] = ()
    unavailable: dict[str, str] = {}
    all: dict[str, Any] = {}
    paper_scale: dict[str, Any] = {}
    quick_scale: dict[str, Any] = {}
    stand_ins: dict[str, str] = {}
    table: TableLayout

    @field_validator("title", "protocol")
    @classmethod
    def _is_one_line(cls, text: str) -> str:
        return " ".join(text.split())

    @cached_property
    def layers(self) -> dict[str, dict[str, Any]]:
        """Its parts that hold keys of the configuration, by name."""
        return {"all": self.all, "paper_scale": self.paper_scale, "quick_scale": self.quick_scale}

    def of_scale(self, scale: Scale) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The layers of a scale, lowest first: its preset, and the suite's own two."""
        return read_preset(scale), self.all, self.layers[f"{scale}_scale"]


def find_suite(name: str) -> Path:
    """The file of a suite.

    Args:
        name: a suite's, or the path of a YAML file.

    Raises:
        UnknownNameError: no such suite, with the nearest.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    files = suite_files()
    check_name("suite", name, sorted(files))
    return files[name]


def read_suite(name: str, plugins: Iterable[Path] = (), concept_files: Iterable[Path] = ()) -> Suite:
    """A suite that can be run: its names are all known.

    Args:
        name: a suite's, or the path of a YAML file.
        plugins: the user's own plug-in files, beside those that the suite names.
        concept_files: the user's own concept files, likewise.

    Raises:
        EraseBenchError: no such suite, or something in it is wrong, with its file and key.
    """
    path = find_suite(name)
    suite = parse_suite(path)
    more = [make_config(layer) for layer in suite.layers.values()]
    check_suite(
        suite,
        path,
        [*plugins, *(file for config in more for file in config.plugins)],
        [*concept_files, *(file for config in more for file in config.concept_files)],
    )
    return suite


def parse_suite(path: Path) -> Suite:
    """A suite whose keys are known; what they name may be of plug-ins that are not there.

    Raises:
        EraseBenchError: it cannot be read, or is not built as a suite is, with its file and key.
    """
    content = read_layer(path)
    _check_keys(content, Suite, str(path))
    if isinstance(content.get("table"), dict):
        _check_keys(content["table"], TableLayout, f"{path}: table")
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ").lower()
        ending = f", not {shown(first['input'])}" if isinstance(first["input"], (str, int, float)) else ""
        raise EraseBenchError(f"{path}: {where}: {reason}{ending}") from None
    for name, layer in suite.layers.items():
        for key in layer:
            check_name("configuration key", str(key), set(RunConfig.model_fields) - {"suite"}, f"{path}: {name}")
        try:
            make_config(layer)
        except EraseBenchError as error:
            raise EraseBenchError(f"{path}: {name}: {error}") from None
    return suite


def check_suite(suite: Suite, path: Path, plugins: Iterable[Path] = (), concept_files: Iterable[Path] = ()) -> None:
    """Check what a suite names: metrics, the paper and its tables, concepts.

    Args:
        suite: the suite, which was read from ``path``.
        path: its file, for messages.
        plugins: files that may bring metrics.
        concept_files: files that may bring concepts.

    Raises:
        EraseBenchError: something is not known, with the nearest.
    """
    for file in dict.fromkeys(plugins):
        load_file(file)
    from erasebench.metrics.metric import load_metrics  # numpy, which names are listed without

    metrics = load_metrics()
    scale_metrics = {scale: make_config(*suite.of_scale(scale)).metrics for scale in SCALES}
    for name in suite.table.metrics:
        check_name("metric", name, metrics, f"{path}: table.metrics")
        scales = [scale for scale in SCALES if metrics[name].on_request and name not in scale_metrics[scale]]
        if scales:
            raise EraseBenchError(
                f"{path}: table.metrics: {name} is measured only where it is asked for, which the {scales[0]} scale"
                " does not; add it to metrics under all"
            )
    concepts = _published_concepts(suite, path)
    if not suite.stand_ins:
        return
    catalogue = load_catalogue(list(dict.fromkeys(concept_files)))
    for concept, stand_in in suite.stand_ins.items():
        if suite.paper is None:
            raise EraseBenchError(f"{path}: stand_ins: without a paper there is nothing to stand in for")
        check_name("concept of these tables", concept, concepts, f"{path}: stand_ins")
        try:
            catalogue.get(stand_in)
        except EraseBenchError as error:
            raise EraseBenchError(f"{path}: stand_ins.{concept}: {error}") from None


def _published_concepts(suite: Suite, path: Path) -> list[str]:
    """The concepts that the published numbers of a suite's tables have."""
    if suite.paper is None:
        if suite.tables:
            raise EraseBenchError(f"{path}: tables: of which paper is not said; add the key paper")
        return []
    from erasebench.results.published import PUBLISHED, read_published  # pandas, which names are listed without

    check_name("paper", suite.paper, sorted(file.stem for file in PUBLISHED.glob("*.csv")), str(path))
    published = read_published()
    published = published[published["source"] == suite.paper]
    for table in suite.tables:
        check_name("table", table, list(published["table"].unique()), f"{path}: tables")
    return [name for name in published[published["table"].isin(suite.tables)]["concept"].unique() if name]


def scale_of(domain: Domain) -> Scale:
    """The scale of suites that models of a domain can run, which is also the preset of their runs."""
    return "paper" if domain.published else "quick"


def layered_config(options: Mapping[str, Any], file: Path | None = None, preset: str | None = None) -> RunConfig:
    """The configuration that preset, suite, file and options make, each over the one before.

    Args:
        options: keys and values.
        file: a YAML file of keys, ``preset`` included.
        preset: if omitted the file's, or "quick" for Picturebook and "paper" for other models.  Of a suite, "quick" and
            "paper" choose the scale, and any other is laid over the suite.

    Raises:
        EraseBenchError: no such preset, suite or file, an unknown key, or a value that does not fit.
    """
    layer = read_layer(file) if file else {}
    in_file = layer.pop("preset", None)
    if not isinstance(in_file, str | None):
        raise EraseBenchError(f"{file}: preset: expected a name, not {shown(in_file)}")
    preset = preset or in_file
    scale = scale_of(domain_of_model(options.get("model", layer.get("model", RunConfig.model_fields["model"].default))))
    name = options.get("suite", layer.get("suite"))
    if not name:
        return make_config(read_preset(preset or scale), layer, options)
    path = find_suite(str(name))
    suite = parse_suite(path)
    if preset in ("paper", "quick"):
        scale = "paper" if preset == "paper" else "quick"
        preset = None
    config = make_config(*suite.of_scale(scale), read_preset(preset) if preset else {}, layer, options)
    check_suite(suite, path, config.plugins, config.concept_files)
    return config


def suite_details(suite: Suite) -> list[tuple[str, list[str]]]:
    """Details of a suite: by name, in sentences, of which some may be empty."""
    tables = f"{', '.join(suite.tables)} of {suite.paper}; erasebench reproduce prints them beside a run's"
    return [
        ("title", [suite.title]),
        ("protocol", [suite.protocol]),
        *((f"{scale} scale", _described(scale, suite)) for scale in SCALES),
        ("table", [f"a row a method; {' x '.join(suite.table.columns)}", ", ".join(suite.table.metrics)]),
        ("unverified", list(suite.unverified)),
        ("unavailable", [f"{what}: {why}" for what, why in suite.unavailable.items()]),
        ("published", [tables] if suite.paper else []),
        ("stand-ins", [", ".join(f"{one} for {of}" for of, one in suite.stand_ins.items() if one != of)]),
    ]


def _described(scale: Scale, suite: Suite) -> list[str]:
    """The keys of a scale over its preset."""
    layer = {**suite.all, **suite.layers[f"{scale}_scale"]}
    texts = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in layer.items()}
    return [f"the preset {scale}", *(f"{key} {value}" for key, value in texts.items())]


def _check_keys(content: Mapping[str, Any], model: type[BaseModel], where: str) -> None:
    for key in content:
        check_name("key", str(key), model.model_fields, where)
