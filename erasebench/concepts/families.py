"""Families: concepts of a file that differ in their words only, such as a hundred artists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erasebench.concepts._files import CatalogueError, build
from erasebench.texts import shown


@dataclass(frozen=True)
class Family:
    """Concepts that differ in their words only; their family's name is also that of the group of them all.

    Attributes:
        kind: of each; likewise ``anchor`` and ``judge``.
        domain: the one domain that knows them.
        naming: prompts, with ``{}`` in the place of the phrase.
        neighbours: names of concepts and of groups; each concept leaves itself out.
        phrases: the words of each, which its name and its label are made of: lower case with hyphens, no accents.
    """

    kind: str
    judge: str
    domain: str
    naming: tuple[str, ...]
    phrases: tuple[str, ...]
    neighbours: tuple[str, ...] = ()
    anchor: str = ""


def name_of(phrase: str) -> str:
    """``"Briton Rivière"`` -> ``"briton-riviere"``."""
    plain = unicodedata.normalize("NFKD", phrase).encode("ascii", "ignore").decode()
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower()))


def with_families(content: Any, where: str) -> Any:
    """The content of a concept file, its section ``families`` written out as concepts and groups.

    Raises:
        CatalogueError: a family is wrong, or has a concept that the file already has.
    """
    if not isinstance(content, Mapping) or "families" not in content:
        return content
    families = build(_Families, {"families": content["families"]}, where).families
    names = {family: [name_of(phrase) for phrase in one.phrases] for family, one in families.items()}
    concepts, groups = (dict(_section(content, name, where)) for name in ("concepts", "groups"))
    for family, one in families.items():
        place = f"{where}: families: {family}"
        if without := next((text for text in one.naming if "{}" not in text), None):
            raise CatalogueError(f"{place}: naming: '{without}' has no {{}} where the phrase goes")
        if family in groups:
            raise CatalogueError(f"{place}: there is a group of that name")
        groups[family] = names[family]
        for phrase, name in zip(one.phrases, names[family], strict=True):
            if name in concepts:
                raise CatalogueError(f"{place}: '{phrase}': there is a concept '{name}' in this file")
            view = {"judge": one.judge, "label": name, "naming": [text.replace("{}", phrase) for text in one.naming]}
            concepts[name] = {
                **{"kind": one.kind, "phrase": phrase, "anchor": one.anchor, "views": {one.domain: view}},
                "neighbours": [neighbour for neighbour in one.neighbours if neighbour != name],
            }
    rest = {section: value for section, value in content.items() if section != "families"}
    return {**rest, "concepts": concepts, "groups": groups}


def _section(content: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    section = content.get(name, {})
    if not isinstance(section, Mapping):
        raise CatalogueError(f"{where}: {name}: expected a mapping, found {shown(section)}")
    return section


@dataclass(frozen=True)
class _Families:
    families: Mapping[str, Family]
