"""The distance of a suite's run from what the suite says."""

from __future__ import annotations

from collections.abc import Iterator

from erasebench.config import RunConfig, make_config, parse_method
from erasebench.domains import DOMAINS
from erasebench.hyper_parameters import hyper_parameters
from erasebench.registry import ATTACKS
from erasebench.settings import plugin_settings, resolve_attack, resolve_method
from erasebench.suites import Suite, scale_of

_TECHNICAL = frozenset(
    {
        "suite",
        "settings",
        "device",
        "dtype",
        "batch_size",
        "max_memory",
        "gradient_checkpointing",
        "workers",
        "patience",
        "runner",
        "ray_address",
        "slurm",
        "compile",
        "store",
        "out",
        "plugins",
    }
    | {"fid_reference", "second_judge"}
)
"""Keys of the configuration that change no number of a suite, which it cannot know, or that are compared one by one."""


def describe_scale(suite: Suite, config: RunConfig, domain: str) -> str:
    """The common ground of a suite's run and the paper, in a sentence or two.

    Args:
        suite: the suite.
        config: its run.
        domain: of its model.
    """
    scale = scale_of(DOMAINS[domain])
    sentences = f"Paper scale on {config.model}."
    if scale == "quick":
        sentences = f"Quick scale on {DOMAINS[domain].title}: not the paper's models or prompts."
        sentences += _stand_ins(suite, config)
    other = _deviations(make_config(*suite.of_scale(scale)), config, domain)
    return f"{sentences} Not as the suite has it: {', '.join(other)}." if other else sentences


def _stand_ins(suite: Suite, config: RunConfig) -> str:
    """The number of the paper's concepts that a run has, and what stands in for which."""
    papers = make_config(*suite.of_scale("paper")).concepts
    sentences = ""
    if len(config.concepts) < len(papers):
        sentences += (
            f" {len(config.concepts)} concept{'s' * (len(config.concepts) > 1)} where the paper has {len(papers)}."
        )
    by_stand_in: dict[str, list[str]] = {}
    for concept, stand_in in suite.stand_ins.items():
        if stand_in in config.concepts:
            by_stand_in.setdefault(stand_in, []).append(concept)
    pairs = [f"{stand_in} for {', '.join(concepts)}" for stand_in, concepts in by_stand_in.items()]
    return sentences + (f" Stand-ins: {'; '.join(pairs)}." if pairs else "")


def _deviations(suite: RunConfig, config: RunConfig, domain: str) -> list[str]:
    """The deviations of a run from its suite, in words."""
    deviations = []
    own = {"steps": DOMAINS[domain].steps, "guidance_scale": DOMAINS[domain].guidance_scale}
    for key in RunConfig.model_fields:
        ours, theirs = (
            own.get(key) if value is None else value for value in (getattr(config, key), getattr(suite, key))
        )
        unused = key in ("attack_prompts", "floor_prompts") and not config.attacks
        if key in _TECHNICAL or ours == theirs or unused:
            continue
        own_value = "the model's own" if theirs is None else theirs
        deviations.append(f"{key} ({ours}, not {own_value})" if isinstance(ours, str | int | float) else key)
    names = [name for name, same in _hyper_parameters_of(suite, config, domain) if not same]
    return [*deviations, f"settings of {', '.join(names)}"] if names else deviations


def _hyper_parameters_of(suite: RunConfig, config: RunConfig, domain: str) -> Iterator[tuple[str, bool]]:
    """Each method and attack of a run, and whether its hyper-parameters are the suite's.

    Those that a suite leaves to what is erased are taken to be.
    """
    theirs, ours = (plugin_settings(domain, one.settings) for one in (suite, config))
    attacks = [label for label in config.attacks if parse_method(label)[0] in ATTACKS.names()]
    members = [member for label in attacks for member in resolve_attack(label, ours).instance.members]
    for resolve, labels in ((resolve_method, config.methods), (resolve_attack, (*attacks, *members))):
        for label in dict.fromkeys(labels):
            expected, own = (hyper_parameters(resolve(label, settings).instance) for settings in (theirs, ours))
            yield label, all(own[key] == value for key, value in expected.items() if value is not None)
