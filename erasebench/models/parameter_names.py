"""The names of a model's parameters, found for what other tools call them.

Importing this module does without torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache

from erasebench.errors import EraseBenchError

PARTS = ("unet", "text_encoder", "text_encoder_2")
"""The parts of a model that a checkpoint may be of; only some families of models have a second text encoder."""
_KOHYA_PARTS = {"unet": "unet_", "te": "text_encoder_", "te1": "text_encoder_", "te2": "text_encoder_2_"}
"""The names that a LoRA of kohya gives to the parts of a model."""


def parameter_name(key: str, known: Sequence[str]) -> str:
    """The model's name for a key of diffusers, peft or kohya.

    Raises:
        EraseBenchError: there is none; with the nearest.
    """
    names = _spellings(tuple(known))
    matches = [names[c] for c in (_flat(key), *(f"{part}_{_flat(key)}" for part in PARTS)) if c in names]
    if len(matches) > 1:
        raise EraseBenchError(f"'{key}' could be {' or '.join(matches)}")
    if matches:
        return matches[0]
    near = difflib.get_close_matches(_flat(key), [*names, *(n.removeprefix("unet_") for n in names)], 1, cutoff=0)[0]
    raise EraseBenchError(
        f"the model has no parameter '{key}'; the nearest is '{names.get(near) or names['unet_' + near]}'. Keys are "
        "names of diffusers, with or without 'unet.' or 'text_encoder.' in front, or of the original code"
    )


@cache
def _spellings(known: tuple[str, ...]) -> dict[str, str]:
    """The flat spellings of a model's parameters; of a U-Net's also those of the original names, as kohya's for XL."""
    from erasebench.models.original_layout import unet_names

    unet = [name.removeprefix("unet.") for name in known if name.startswith("unet.")]
    originals = unet_names(unet) if "conv_in.weight" in unet else {}
    spellings = {_flat(f"unet.{original}"): f"unet.{name}" for name, original in originals.items()}
    return spellings | {_flat(name): name for name in known}


def _flat(key: str) -> str:
    """A key in kohya's spelling, in which those of all tools agree."""
    key = key.removeprefix("base_model.model.").removesuffix(".weight").replace(".processor.", ".")
    key = re.sub("^lora_(unet|te[12]?)_", lambda m: _KOHYA_PARTS[m[1]], key)
    return key.replace(".", "_").replace("text_model_", "")
