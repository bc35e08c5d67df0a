"""The stores that this folder keeps; its README says what they are."""

from __future__ import annotations

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "stores.tar.xz"
UNERASED = (
    *("--preset", "smoke", "--methods", "sd", "--concepts", "church", "--prompts", "1", "--steps", "8"),
    *("--retain-file", "captions.csv", "--retain-prompts", "2", "--reference-images", "2"),
    *("--device", "cpu", "--workers", "1"),
)
RUN = (
    *UNERASED,
    *("--methods", "dm2[rank=1;pool_size=1;images=1]", "--attacks", "cce", "--attack-prompts", "1"),
)
"""The run of which all of them are."""


def unpack(to: Path) -> Path:
    """Put them into a folder, and return it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(to, filter="data")
    return to
