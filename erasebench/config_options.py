"""Options for the keys of a run's configuration, and the configuration that options make."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from erasebench.completion import LISTED, complete_name, complete_names, complete_path
from erasebench.errors import EraseBenchError


class ConfigCommand(click.Command):
    """A command with an option for every key of the run's configuration; they are made when the command is used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The configuration's options, then the command's own."""
        return [*config_options(), *super().get_params(ctx)]


class AttackCommand(ConfigCommand):
    """A command with an option for every key of the run's configuration but those that it names itself."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The configuration's options, then the command's own."""
        own = ("methods", "attacks", "concepts", "suite")
        return [option for option in super().get_params(ctx) if option.name not in own]


class ReproduceCommand(ConfigCommand):
    """A command with an option for every key of the run's configuration but the suite, which it is given."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The configuration's options, then the command's own."""
        options = super().get_params(ctx)
        return [option for option in options if option.name != "suite" or isinstance(option, click.Argument)]


class EraseCommand(click.Command):
    """A command with an option for those keys of a run's configuration that one erasure has."""

    KEYS: tuple[str, ...] = (
        "model",
        "seed",
        "settings",
        "device",
        "dtype",
        "max_memory",
        "gradient_checkpointing",
        "plugins",
        "concept_files",
    )

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the configuration's, then ``--help``."""
        *own, help_option = super().get_params(ctx)
        return [*own, *(option for option in config_options() if option.name in self.KEYS), help_option]


class ShowCommand(EraseCommand):
    """A command with an option for the files that may bring what it shows."""

    KEYS = ("plugins", "concept_files")


@cache
def config_options() -> list[click.Parameter]:
    """One option for every configuration key, ``--images-per-prompt`` for ``images_per_prompt``."""
    from erasebench.config import RunConfig

    options: list[click.Parameter] = [
        click.Option(["--config"], type=click.Path(path_type=Path, dir_okay=False), help="YAML file of these options."),
        click.Option(
            ["--preset"],
            help="smoke, quick or paper.  [default: quick on Picturebook, else paper]",
            shell_complete=complete_name("presets"),
        ),
    ]
    for key, field in RunConfig.model_fields.items():
        default = field.get_default(call_default_factory=True)
        words = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = f"  [default: {words}]" if default not in (None, (), {}) else ""
        flag = f"--{key.replace('_', '-')}"
        text = f"{field.description}{shown}"
        if field.annotation is bool:
            options.append(click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=text, show_default=False))
        else:
            metavar = _metavar(default, field.annotation)
            several = "concepts" if key == "others" else key
            one = {"second_judge": "judges", "suite": "suites"}.get(key)
            complete = complete_names(several) if several in LISTED else complete_path if metavar == "PATH" else None
            complete = complete_name(one) if one else complete
            options.append(click.Option([flag], help=text, metavar=metavar, shell_complete=complete))
    return options


def _metavar(default: object, annotation: Any) -> str:
    if isinstance(default, tuple):
        return "A,B,..."
    if isinstance(default, dict):
        return "NAME=VALUE,..."
    if get_origin(annotation) is Literal:
        return f"[{'|'.join(get_args(annotation))}]"
    kinds = {"int": "INTEGER", "float": "NUMBER", "Path": "PATH"}
    return next((shown for kind, shown in kinds.items() if kind in str(annotation)), "TEXT")


def read_options(options: dict[str, Any]) -> Any:
    """The configuration that preset, file and options make, each over the one before."""
    from erasebench.suites import layered_config

    file, preset = options.pop("config", None), options.pop("preset", None)
    values = {key: _value(key, value) for key, value in options.items() if value is not None}
    return layered_config(values, file, preset)


def _value(key: str, value: Any) -> Any:
    """The value that an option's text gives; mappings are split at commas and the first equals sign."""
    from erasebench.config import RunConfig, parse_value, split_list

    if isinstance(RunConfig.model_fields[key].get_default(call_default_factory=True), dict):
        pairs = [part.partition("=") for part in split_list(value)]
        counts = Counter(name.strip() for name, _, _ in pairs)
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise EraseBenchError(f"--{key.replace('_', '-')} gives {twice} twice")
        if key != "settings":
            without = [name for name, equals, _ in pairs if not equals]
            if without:
                what = {"judges": "judge", "slurm": "value"}.get(key, "file")
                raise EraseBenchError(f"'{without[0]}' in --{key.replace('_', '-')} names no {what}; write name={what}")
            return {name: parse_value(text) if key == "slurm" else text for name, _, text in pairs}
        # settings: esd-u.steps=200,uce.lamb=0.1
        nested: dict[str, dict[str, Any]] = {}
        for name, equals, text in pairs:
            method, dot, option = name.rpartition(".")
            if not (dot and equals):
                raise EraseBenchError(f"'{name}' in --settings is no setting; write method.option=value")
            nested.setdefault(method, {})[option] = parse_value(text)
        return nested
    return value


def read_erase_options(method: str, concept: str, out: Path, options: dict[str, Any]) -> Any:
    """The configuration of a run of one method; settings without a method's name are the method's."""
    from erasebench.config import make_config, parse_method, split_list

    name = parse_method(method)[0]
    if options["settings"]:
        pairs = [
            part if "." in part.partition("=")[0] else f"{name}.{part}" for part in split_list(options["settings"])
        ]
        options["settings"] = ",".join(pairs)
    values = {key: _value(key, value) for key, value in options.items() if value is not None}
    return make_config({**values, "methods": [method], "concepts": split_list(concept), "out": out})
