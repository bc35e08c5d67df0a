"""Public prompt sets of a run: which are asked, where their files are, and whether these are right copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from erasebench.concepts import AUTO, Prompt, PromptSet, Selection
from erasebench.errors import EraseBenchError, check_name
from erasebench.judges.weights_files import weights_folder
from erasebench.prompts import caption_prompts, check_column, check_prompts, choose_captions, read_captions, read_table
from erasebench.registry import warn


@dataclass(frozen=True)
class Row:
    """A row of a prompt set's file.

    Attributes:
        prompt: its text.
        seed: the seed that the file gives it, if it gives seeds.
        cells: the whole row, by column; one that is cut short lacks the last ones.
    """

    prompt: str
    seed: int | None
    cells: Mapping[str, str | None]


def fetched_file(prompt_set: PromptSet) -> Path:
    """The place where ``erasebench fetch`` puts a set's file, beside the weights of judges; it need not be there."""
    return weights_folder() / "prompt-sets" / prompt_set.file_name


def state(prompt_set: PromptSet) -> str:
    """The state of a set's prompts: part of erasebench, fetched ("there"), or missing."""
    return "built-in" if prompt_set.built_in else "there" if fetched_file(prompt_set).is_file() else "missing"


class PromptSets:
    """The prompt sets of a run, each read once.

    Args:
        known: every prompt set, by name.
        given: the files of those that the run names, or :data:`~erasebench.concepts.AUTO`; a concept is asked by the
            first that has prompts for it, and by its own where none has.
        domain: of the run's model; sets for another are left alone.

    Raises:
        EraseBenchError: an unknown set, a file that is not there, or two sets of unrelated prompts.
    """

    def __init__(self, known: Mapping[str, PromptSet], paths: Mapping[str, Path], domain: str) -> None:
        self._prompt_sets, self._files = known, dict(paths)
        self._rows: dict[str, tuple[Row, ...]] = {}
        for name in paths:
            check_name("prompt set", name, known)
            if not known[name].built_in:
                self._file(known[name])
            elif paths[name] != Path(AUTO):
                raise EraseBenchError(f"the prompts '{name}' are part of erasebench: write {name}={AUTO}")
        self._selection = [known[name] for name in paths if known[name].domain == domain]
        retain = [prompt_set.name for prompt_set in self._selection if prompt_set.retain]
        if len(retain) > 1:
            raise EraseBenchError(f"the prompt sets {' and '.join(retain)} both give unrelated prompts; name one")

    def ask(self, concept: str, default_set: str | None, seed: int) -> list[Prompt] | None:
        """The prompts for a concept, None where no set is asked.

        Args:
            concept: its name.
            default_set: the prompt set that its prompts are taken from where the run names no other, if it has one.
            seed: of prompts whose set gives none.

        Raises:
            EraseBenchError: the set's file is missing, or is no right copy.
        """
        prompt_set = next(
            (each for each in self._selection if concept in each.concepts),
            self._prompt_sets[default_set] if default_set else None,
        )
        if prompt_set is None:
            return None
        selection = prompt_set.concepts[concept]
        if selection.prompts:
            return [Prompt(text, text, seed, "set") for text in selection.prompts]
        rows = _select(self._read(prompt_set), selection)
        return [Prompt(row.prompt, row.prompt, seed if row.seed is None else row.seed, "set") for row in rows]

    def retain(self, seed: int) -> list[Prompt] | None:
        """The unrelated prompts of the set that the run names, None if it names none.

        Args:
            seed: of prompts whose set gives none.

        Raises:
            EraseBenchError: the set's file is no right copy.
        """
        prompt_set = next((each for each in self._selection if each.retain), None)
        if prompt_set is None:
            return None
        rows = self._read(prompt_set)
        if rows[0].seed is None:
            return caption_prompts([row.prompt for row in rows], seed)
        return [Prompt(row.prompt, row.prompt, row.seed, "retain") for row in rows if row.seed is not None]

    def _file(self, prompt_set: PromptSet) -> Path:
        """The place of a set's file."""
        path = self._files.get(prompt_set.name, Path(AUTO))
        if path == Path(AUTO):
            path = fetched_file(prompt_set)
            if not path.is_file():
                raise missing_file(prompt_set)
        if not path.is_file():
            raise EraseBenchError(f"cannot read {path}: {'Is a directory' if path.is_dir() else 'No such file'}")
        return path

    def _read(self, prompt_set: PromptSet) -> tuple[Row, ...]:
        if prompt_set.name not in self._rows:
            self._rows[prompt_set.name] = tuple(read_prompt_set(prompt_set, self._file(prompt_set)))
        return self._rows[prompt_set.name]


def missing_file(prompt_set: PromptSet) -> EraseBenchError:
    """The error for the user where a set's file is missing: which, and how to get it."""
    return EraseBenchError(
        f"the prompts '{prompt_set.name}' are needed and not part of erasebench: {_how_to_get(prompt_set)}"
    )


def _how_to_get(prompt_set: PromptSet) -> str:
    option = f"--prompt-sets {prompt_set.name}=FILE{Path(prompt_set.file_name).suffix}"
    if prompt_set.can_be_fetched:
        return f"get them by `erasebench fetch {prompt_set.name}`, or give a copy of {prompt_set.url} by {option}"
    return f"get the file from {prompt_set.url} and give it by {option}"


def read_prompt_set(prompt_set: PromptSet, path: Path) -> list[Row]:
    """The rows of a copy of a prompt set, after a look at whether it is a right one; of captions, one an image.

    Another number of prompts that differ is a warning, since copies spell some otherwise; all else is an error.

    Raises:
        EraseBenchError: the file cannot be read, lacks a column, holds an empty prompt or no seed, or has other rows
            than the set: how many, and where to get it.
    """
    if path.suffix.lower() == ".json":
        captions = read_captions(path)
        _check_count(prompt_set, path, "captions", len(captions), prompt_set.rows)
        return [Row(text, None, {}) for text in choose_captions(captions)]
    table = read_table(path)
    column = check_column(path, table, *prompt_set.prompt)
    seeds = check_column(path, table, *prompt_set.seeds) if prompt_set.seeds else None
    for where in {name for selection in prompt_set.concepts.values() for name in selection.where}:
        check_column(path, table, where)
    _check_count(prompt_set, path, "rows", len(table), prompt_set.rows)
    check_prompts(path, [row[column] for row in table], prompt_set.empty)
    try:
        rows = [Row(row[column] or "", int(row[seeds]) if seeds else None, row) for row in table]
    except (ValueError, TypeError) as error:
        raise EraseBenchError(f"column {seeds} of {path} holds no seed: {error}") from None
    wrong = next((row.seed for row in rows if row.seed is not None and not 0 <= row.seed < 2**63), None)
    if wrong is not None:
        raise EraseBenchError(f"column {seeds} of {path} holds no seed: {wrong} is not from 0 to 2^63 - 1")
    for concept, selection in prompt_set.concepts.items():
        if selection.rows is not None:
            count = len(_select(rows, selection))
            _check_count(prompt_set, path, f"rows for {concept}", count, (selection.rows,))
    for what, checksum, texts in (
        ("prompts", prompt_set.md5_prompts, [row.prompt for row in rows]),
        ("seeds", prompt_set.md5_seeds, [str(row.seed) for row in rows]),
    ):
        digest = md5("|".join(text.strip() for text in texts).encode(), usedforsecurity=False).hexdigest()
        if not digest.startswith(checksum):
            raise EraseBenchError(
                f"{path} has other {what} than {prompt_set.name}: their MD5 begins with {digest[:8]}, not with "
                f"{checksum}; get it from {prompt_set.url}"
            )
    distinct = len({row.prompt for row in rows})
    if prompt_set.distinct not in (None, distinct):
        warn(
            f"{distinct:,} prompts of {path} differ, where {prompt_set.distinct:,} of {prompt_set.name} do: some are "
            "spelt otherwise than in the copy that papers use"
        )
    return rows


def _select(rows: Sequence[Row], selection: Selection) -> list[Row]:
    conditions = [(column, text.casefold()) for column, text in selection.where.items()]
    return [row for row in rows if all(text in (row.cells[column] or "").casefold() for column, text in conditions)]


def _check_count(prompt_set: PromptSet, path: Path, what: str, count: int, counts: Sequence[int]) -> None:
    if counts and count not in counts:
        right = " or ".join(f"{number:,}" for number in counts)
        raise EraseBenchError(
            f"{path} has {count:,} {what}, but {prompt_set.name} has {right}: it is cut short or another file; get it "
            f"from {prompt_set.url}"
        )


def prompt_set_details(prompt_set: PromptSet) -> list[tuple[str, list[str]]]:
    """Details of a prompt set and of what it holds: by name, in sentences, of which some may be empty."""
    have = {
        "built-in": f"built-in: --prompt-sets {prompt_set.name}={AUTO} asks them",
        "there": f"{fetched_file(prompt_set)}: --prompt-sets {prompt_set.name}={AUTO} asks them",
        "missing": f"missing: {_how_to_get(prompt_set)}",
    }[state(prompt_set)]
    columns = f"{' or '.join(prompt_set.prompt)}; seeds: {' or '.join(prompt_set.seeds) or 'none'}"
    counts = [
        f"{' or '.join(f'{number:,}' for number in prompt_set.rows)} rows" if prompt_set.rows else "",
        f"{prompt_set.distinct:,} different prompts" if prompt_set.distinct else "",
        f"{prompt_set.empty} of them may be empty" if prompt_set.empty else "",
        f"MD5 of the prompts {prompt_set.md5_prompts}..., of the seeds {prompt_set.md5_seeds}..."
        if prompt_set.md5_prompts
        else "",
    ]
    return [
        ("title", [prompt_set.title]),
        ("page", [prompt_set.url]),
        ("download", [str(prompt_set.hub or prompt_set.download)]),
        ("licence", [prompt_set.licence]),
        ("here", [have]),
        ("columns", ["" if prompt_set.built_in or prompt_set.file_name.endswith(".json") else columns]),
        ("checked", [", ".join(filter(None, counts))]),
        ("concepts", [f"{name}: {_selected(selection)}" for name, selection in prompt_set.concepts.items()]),
        ("for", ["unrelated prompts" if prompt_set.retain else ""]),
        ("note", [prompt_set.note]),
    ]


def _selected(selection: Selection) -> str:
    if selection.prompts:
        count = "1 prompt" if len(selection.prompts) == 1 else f"{len(selection.prompts)} prompts, such as"
        return f"{count}: {selection.prompts[0]}"
    count = "all rows" if selection.rows is None else f"{selection.rows:,} rows"
    return count + "".join(f", '{text}' in {column}" for column, text in selection.where.items())
