"""Runs with attacks and several judges for tests of the image viewer, and a reader of the HTML that comes of them."""

from __future__ import annotations

import html.parser
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from erasebench.adversarial import AdversarialPrompt, Found
from erasebench.engine.store import Store
from erasebench.results.attacks import attack_rows, attacks_frame
from erasebench.results.record import AttackRecord
from erasebench.results.run_folder import RunFolder, read_run
from tests.results.trials import trial

OUTCOMES = {"-": "none", "r": "raw", "c": "confirmed"}


def read_finished(folder: Path) -> tuple[RunFolder, Store]:
    """The run of the fixture ``finished``, and its store."""
    return read_run(folder / "out"), Store(folder / "store", make=False)


def prompts_of(run: RunFolder, concept: str) -> list[str]:
    """The ids of a concept's own prompts, in order."""
    own = run.scores[(run.scores["concept"] == concept) & (run.scores["probe"] == "concept")]
    return list(dict.fromkeys(own["prompt_id"]))


def images_of(run: RunFolder, method: str, concept: str, probe: str = "concept") -> str:
    """The cell of a row's images."""
    row = next(row for row in run.record.rows if (row.method, row.concept) == (method, concept))
    images = row.probes[probe].images
    assert images
    return images


def attacked(
    run: RunFolder,
    successes: Mapping[tuple[str, str], str],
    concept: str = "church",
    members: Mapping[str, tuple[str, ...]] | None = None,
    found: str = "found <b>for</b> {}",
) -> RunFolder:
    """The run with attacks, whose images are those of the unerased model's other prompts.

    Args:
        run: is left as it is.
        successes: by method and attack, a letter of :data:`OUTCOMES` for each prompt of the concept.
        concept: what is attacked.
        members: by ensemble, its members; the first made what the ensemble found.
        found: the text that attacks found for a prompt; "" for embeddings.
    """
    cell = images_of(run, run.record.baseline, concept)
    kind = next(row.kind for row in run.record.rows if row.concept == concept)
    rows, records = [], []
    for (method, attack), letters in successes.items():
        prompts = prompts_of(run, concept)[: len(letters)]
        of = (members or {}).get(attack, (attack,))
        tried = []
        for prompt, letter in zip(prompts, letters, strict=True):
            made = trial(prompt, OUTCOMES[letter])
            text = AdversarialPrompt(found.format(prompt))
            if not found:
                text = replace(text, vectors=pd.Series([0.0]).to_numpy("float32"))
            tried.append((replace(made, text=prompt, seed=0, found=Found(text)), 1.0, of[0]))
        rows += attack_rows(method, concept, attack, tried)
        records.append(
            AttackRecord(
                method=method,
                concept=concept,
                kind=kind,
                attack=attack,
                status="ok",
                judge="detector 1: church >= 0.5",
                trials={member: dict.fromkeys(prompts, cell) for member in of},
            )
        )
    record = run.record.model_copy(update={"attacks": tuple(records)})
    return replace(run, record=record, attacks=attacks_frame(rows))


def judged_again(run: RunFolder, scores: Mapping[int, float]) -> RunFolder:
    """The run with a second judge of the unerased model's church images: by place, its score, the threshold 0.5."""
    own = run.scores[
        (run.scores["method"] == run.record.baseline)
        & (run.scores["concept"] == "church")
        & (run.scores["probe"] == "concept")
        & run.scores["image"].isin(scores)
    ]
    more = own.assign(judge="second", score=own["image"].map(scores))
    return replace(run, scores=pd.concat([run.scores, more], ignore_index=True))


@dataclass
class Cell:
    """A cell of a sheet: its attributes, those of its link and image, its text, and its row's header."""

    attributes: dict[str, str]
    href: str = ""
    src: str = ""
    alt: str = ""
    text: str = ""
    row: str = ""
    concept: str = ""


@dataclass
class Page(html.parser.HTMLParser):
    """What is on a page, read with Python's own parser."""

    text: str
    cells: list[Cell] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._row, self._concept, self._open = "", "", ""
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.tags.append((tag, known))
        self._concept = known.get("data-concept", self._concept)
        if tag == "tr":
            self._row = ""
        elif tag in ("td", "th"):
            self._open = tag
        if tag == "td":
            self.cells.append(Cell(known, row=self._row, concept=self._concept))
        elif self._open == "td" and tag == "a":
            self.cells[-1].href = known["href"]
        elif self._open == "td" and tag == "img":
            self.cells[-1].src, self.cells[-1].alt = known["src"], known["alt"]

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open == "td":
            self.cells[-1].text += data
        elif self._open == "th":
            self._row += data
