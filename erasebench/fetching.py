"""Weights of judges: what each needs, whether it is there, and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from erasebench.errors import EraseBenchError
from erasebench.judges.weights_files import FOLDER, Progress, Weights, weights_folder
from erasebench.registry import JUDGES


def list_weights() -> list[str]:
    """One line for each judge and each of its weights: whether it is there, what it is, where it comes from."""
    width = max(map(len, JUDGES.names()))
    return [
        f"{name:<{width}}  {_state(weights):<7}  {weights}" for name in JUDGES.names() for weights in _weights(name)
    ]


def fetch_weights(judge: str, folder: Path | None, tell: Callable[[str], object], on_progress: Progress) -> None:
    """Bring what a judge needs into a folder, unless it is there.

    Args:
        judge: its name.
        folder: where to; None for the folder in which weights are looked for.
        tell: told what is fetched from where, and what is there.
        on_progress: told bytes done and bytes in all, of each file.

    Raises:
        EraseBenchError: no such judge, or something cannot be had: what, from where, into which folder.
    """
    place = weights_folder() if folder is None else folder
    for weights in _weights(judge):
        if not isinstance(weights, Weights):
            tell(f"nothing to fetch: {weights}")
            continue
        if folder is None and _state(weights) == "there":
            tell(f"there already: {weights.find()}")
            continue
        tell(f"fetching {weights}")
        tell(f"there now: {weights.fetch(place, on_progress)}")
    if folder is not None and folder.resolve() != weights_folder().resolve():
        tell(f"judges look into {weights_folder()}; let the environment variable {FOLDER} name {folder}")


def _weights(judge: str) -> Iterator[object]:
    yield from JUDGES.get(judge).make.weights or ("no weights",)  # type: ignore[attr-defined]  # a class of judges


def _state(weights: object) -> str:
    """Whether weights are there, and the right ones; those that are no file come with erasebench."""
    if isinstance(weights, Weights):
        try:
            weights.find()
        except EraseBenchError:
            return "missing"
    return "there"
