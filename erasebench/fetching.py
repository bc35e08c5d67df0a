"""Weights of judges and files of prompts: what there is to fetch, whether it is there, and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from erasebench.concepts import AUTO, Hub, PromptSet, load_catalogue
from erasebench.errors import EraseBenchError, check_name, one_line
from erasebench.files import durably
from erasebench.judges.weights_files import FOLDER, Progress, WeightFile, Weights, weights_folder
from erasebench.prompt_sets import fetched_file, missing_file, read_prompt_set, state
from erasebench.registry import JUDGES


def list_files() -> list[str]:
    """One line for each prompt set and each of a judge's weights: whether it is there, what it is, where it is from."""
    lines = [(name, _state(weights), str(weights)) for name in JUDGES.names() for weights in _weights(name)]
    sets = load_catalogue().prompt_sets.values()
    lines += [(each.name, state(each), f"prompts from {each.url}") for each in sets if not each.built_in]
    width = max(len(name) for name, *_ in lines)
    return [f"{name:<{width}}  {there:<7}  {what}" for name, there, what in lines]


def fetch(name: str, folder: Path | None, tell: Callable[[str], object], on_progress: Progress) -> None:
    """Bring what a judge needs, or a prompt set, into a folder, unless it is there.

    Args:
        name: of the judge or of the prompt set.
        folder: where to; None for the folder in which it is looked for.
        tell: told what is fetched from where, and what is there.
        on_progress: told bytes done and bytes in all, of each file.

    Raises:
        EraseBenchError: no such judge or set, or something cannot be had: what, from where, into which folder.
    """
    sets = load_catalogue().prompt_sets
    check_name("judge or prompt set", name, [*JUDGES.names(), *sets])
    if name in sets:
        _fetch_prompts(sets[name], folder, tell, on_progress)
    else:
        _fetch_weights(name, folder, tell, on_progress)


def _fetch_weights(judge: str, folder: Path | None, tell: Callable[[str], object], on_progress: Progress) -> None:
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


def _fetch_prompts(
    prompt_set: PromptSet, folder: Path | None, tell: Callable[[str], object], on_progress: Progress
) -> None:
    """Bring the file of a prompt set and check it; a wrong one that came is removed."""
    if prompt_set.built_in:
        tell(f"nothing to fetch: the prompts are part of erasebench; --prompt-sets {prompt_set.name}={AUTO} asks them")
        return
    if not prompt_set.can_be_fetched:
        raise missing_file(prompt_set)
    default = fetched_file(prompt_set)
    target = default if folder is None else folder / default.name
    if target.is_file():
        tell(f"there already: {target}, {_count(prompt_set, target)}")
        return
    if prompt_set.hub:
        tell(f"fetching {prompt_set.hub}")
        _fetch_from_hub(prompt_set.hub, prompt_set.name, target)
    else:
        tell(f"fetching {prompt_set.download}")
        WeightFile(target.name, prompt_set.download, "").fetch(target.parent, on_progress)
    try:
        tell(f"there now: {target}, {_count(prompt_set, target)}")
    except EraseBenchError as error:
        target.unlink()
        raise EraseBenchError(f"{error}; what came is removed") from None
    if folder is not None:
        tell(f"name it in runs: --prompt-sets {prompt_set.name}={target}")


def _count(prompt_set: PromptSet, path: Path) -> str:
    return f"{len(read_prompt_set(prompt_set, path)):,} prompts"


def _fetch_from_hub(hub: Hub, name: str, target: Path) -> None:
    """Download a file from the hub, by its own client, which knows the user's mirrors and tokens."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(hub.dataset, hub.file, repo_type="dataset", revision=hub.revision)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        command = f"hf download --repo-type dataset {hub.dataset} {hub.file} --revision {hub.revision}"
        raise EraseBenchError(
            f"cannot fetch {hub} ({one_line(error)}); where there is a network: {command}, and give the file by "
            f"--prompt-sets {name}={Path(hub.file).name}"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with durably(target) as stream:
        stream.write(Path(path).read_bytes())


def _weights(judge: str) -> Iterator[object]:
    yield from JUDGES.get(judge).make.weights or ("no weights",)  # type: ignore[attr-defined]  # a class of judges


def _state(weights: object) -> str:
    """The state of weights: "there" (and the right ones) or "missing"; those that are no file come with erasebench."""
    if isinstance(weights, Weights):
        try:
            weights.find()
        except EraseBenchError:
            return "missing"
    return "there"
