"""Part ``never-saw``: Picturebook trained from nothing on all scenes but those of one concept.

A model that never saw a concept is what an erasure would like to reach.  It is kept as a change of Picturebook's
weights, which a run takes as a row: ``checkpoint[path=FOLDER]``.  Its fellow, trained in the same way on everything, is
``train anew``.
"""

from __future__ import annotations

from benchmarks.gpu.kit import KitError, Part
from benchmarks.gpu.parts.train import measure_pipeline, train_picturebook
from erasebench.errors import EraseBenchError, check_name
from erasebench.models.erasure import Erasure
from erasebench.picturebook import LABELS
from erasebench.picturebook.world.styles import STYLES

CONCEPTS = (*LABELS, *(style for style in STYLES if style != "photo"))


def run(part: Part) -> None:
    """Train without a concept and keep the change."""
    try:
        check_name("concept", part.argument, CONCEPTS)
    except EraseBenchError as error:
        raise KitError(str(error)) from None
    model = train_picturebook(part, start="nothing", without=part.argument)
    parts = {"unet": model.unet, "text_encoder": model.text_encoder}
    weights = {
        f"{name}.{key}": p.detach().half() for name, module in parts.items() for key, p in module.named_parameters()
    }
    Erasure(weights).save(part.folder)
    measure_pipeline(part)
