"""Domains: each role is filled by what exists, and knowing the domains loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from itertools import islice

import numpy as np
import pytest

from erasebench.domains import (
    DOMAINS,
    FOLDER_FEATURES,
    PHOTO,
    PICTUREBOOK,
    Domain,
    domain_of_model,
    features_title,
)
from erasebench.picturebook.world.captions import caption
from erasebench.picturebook.world.scene import render, sample_scene
from erasebench.registry import JUDGES

each_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))


def test_domains_are_known_by_their_names() -> None:
    assert {"picturebook": PICTUREBOOK, "photo": PHOTO} == DOMAINS


@each_domain
def test_judges_of_every_role_are_registered(domain: Domain) -> None:
    roles = (domain.clip, domain.distance, domain.segmenter, domain.phrase_judge, domain.features.judge)
    assert {*roles, FOLDER_FEATURES.judge} <= set(JUDGES.names())


@each_domain
def test_a_table_names_the_features(domain: Domain) -> None:
    assert features_title(domain.features.judge) == domain.features.title


@each_domain
def test_the_file_of_settings_is_there(domain: Domain) -> None:
    if domain.settings:
        assert (files("erasebench.methods") / domain.settings).is_file()


def test_the_world_gives_its_images_and_captions() -> None:
    world = PICTUREBOOK.world
    assert world is not None and PHOTO.world is None
    images = world.render(7, 3)
    assert all((images[k] == render(sample_scene(7 + k)).image).all() for k in range(3))
    captions = list(world.captions(5))
    assert [text for text, _ in captions] == [caption(sample_scene(k), np.random.default_rng(k)) for k in range(5)]
    first = sample_scene(0)
    assert captions[0][1] == {first.style, *(subject.label for subject in first.subjects)}
    assert list(islice(world.captions(10**9), 1)) == captions[:1]  # made as they are asked for


def test_a_built_in_model_has_its_own_domain_and_every_other_model_makes_photographs() -> None:
    assert domain_of_model("picturebook") is PICTUREBOOK
    assert domain_of_model("CompVis/stable-diffusion-v1-4") is PHOTO
    assert domain_of_model("./picturebook") is PHOTO


def test_papers_measure_models_of_one_domain() -> None:
    assert [domain.name for domain in DOMAINS.values() if domain.published] == ["photo"]


def test_images_of_sensitive_concepts_are_harmless_in_picturebook_alone() -> None:
    assert [domain.name for domain in DOMAINS.values() if domain.harmless] == ["picturebook"]


def test_knowing_the_domains_loads_nothing_heavy() -> None:
    code = "import sys, erasebench.domains; print(*{'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
