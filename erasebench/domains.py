"""Domains: what a model's images are of, and who or what serves there in each role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erasebench.picturebook import GUIDANCE, STEPS, scenes

if TYPE_CHECKING:
    from erasebench.judging import Images


@dataclass(frozen=True)
class Features:
    """Features of images that FID compares.

    Attributes:
        judge: the judge that gives them.
        title: what a table calls them.
    """

    judge: str
    title: str


@dataclass(frozen=True)
class World:
    """A renderer of scenes, whose images and captions are what a domain's model learnt.

    Attributes:
        name: what cells call it; ``kind`` what they are alike in.
        version: changes whenever the images may.
        render: images of scenes of consecutive seeds: the first seed and how many -> uint8 ``[n, height, width, 3]``.
        captions: of so many training scenes, each with the names of all that its scene shows.
    """

    name: str
    kind: str
    version: Callable[[], str]
    render: Callable[[int, int], Images]
    captions: Callable[[int], Iterator[tuple[str, frozenset[str]]]]


@dataclass(frozen=True)
class Domain:
    """A domain by its roles.

    Attributes:
        name: by which models, views of concepts and plug-ins know it.
        title: what texts call it.
        clip: the judge of CLIP scores.
        distance: the judge of how far an image is from the unerased model's of the same prompt and seed.
        segmenter: the judge that finds in an image what a phrase names.
        phrase_judge: the judge of concepts that are nothing but a phrase.
        phrase_templates: the prompts of such a concept, with ``{}`` in its place.
        features: those that FID compares with the world's images, or with a folder's if there is no world.
        world: gives reference images and captions to preserve; None where the user has to.
        steps: of sampling, unless the run says otherwise; ``guidance_scale`` likewise.
        settings: the file, beside the methods, of their settings for models that are unlike the published ones'.
        published: whether papers measure models of it, so that their numbers, scales and defaults hold there.
        harmless: whether images of sensitive concepts may be shown as they are.
    """

    name: str
    title: str
    clip: str
    distance: str
    segmenter: str
    phrase_judge: str
    phrase_templates: tuple[str, ...]
    features: Features
    world: World | None
    steps: int
    guidance_scale: float
    settings: str | None = None
    published: bool = False
    harmless: bool = False


FOLDER_FEATURES = Features("inception", "Inception features, clean-fid")
"""The features by which FID compares with a folder of the user's images, in every domain."""
_PHRASE_TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}", "{}")

PICTUREBOOK = Domain(
    name="picturebook",
    title="Picturebook",
    clip="picturebook-clip",
    distance="picturebook-distance",
    segmenter="picturebook-segmenter",
    phrase_judge="clip-phrase",
    phrase_templates=_PHRASE_TEMPLATES,
    features=Features("picturebook-clip", "Picturebook CLIP features"),
    world=World("picturebook world", "picturebook", scenes.world_version, scenes.render_images, scenes.read_captions),
    steps=STEPS,
    guidance_scale=GUIDANCE,
    settings="picturebook.yaml",
    harmless=True,  # mannequins and cartoons
)
"""The built-in world."""
PHOTO = Domain(
    name="photo",
    title="photographs and paintings",
    clip="clip",
    distance="lpips",
    segmenter="grounded-sam",
    phrase_judge="clip-phrase",
    phrase_templates=_PHRASE_TEMPLATES,
    features=FOLDER_FEATURES,
    world=None,
    steps=50,
    guidance_scale=7.5,
    published=True,
)
"""Photographs and paintings as Stable Diffusion makes them."""

DOMAINS: Mapping[str, Domain] = {domain.name: domain for domain in (PICTUREBOOK, PHOTO)}
"""Every domain by name."""


def domain_of_model(model: str) -> Domain:
    """The domain of a model by the model's name: a built-in model's, which has the same, or else :data:`PHOTO`."""
    return next((domain for domain in DOMAINS.values() if domain.name == model), PHOTO)


def features_title(judge: str) -> str:
    """The name in a table of the features that a judge gives."""
    known = (FOLDER_FEATURES, *(domain.features for domain in DOMAINS.values()))
    return next(features.title for features in known if features.judge == judge)
