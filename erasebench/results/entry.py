"""An entry of the leaderboard: one method, concept and model as JSON that a pull request can carry, and its artefacts.

The artefacts (:mod:`erasebench.results.artefacts`) are what it takes to check the entry.  The fields are RobustBench's
(Croce et al. 2021), for what is measured here.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from erasebench.engine.cells import canonical_json
from erasebench.engine.ledger import LEDGER
from erasebench.errors import EraseBenchError, check_name
from erasebench.files import write_durably
from erasebench.metrics.stats import Estimate
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.leaderboard import CONFIRMED, ROBUST, BoardRow, Entered, rows_of_run
from erasebench.results.leaderboard_csv import read_leaderboard
from erasebench.results.protocol import Facts
from erasebench.results.record import RECORD
from erasebench.results.rows import Status
from erasebench.results.run_folder import read_run

SUBMITTED = ("name", "paper", "authors", "venue", "reported", "external", "source", "unreliable", "footnote")
"""The fields that people fill in, and may change later; everything else was measured."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Number(_Part):
    """A number with its 95 % interval, and how many images or prompts are behind it; null where it is not defined."""

    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n: Annotated[int, Field(ge=0)]

    @classmethod
    def of(cls, estimate: Estimate) -> Number:
        """An estimate as JSON has it."""
        ends = (estimate.value, estimate.low, estimate.high)
        value, low, high = (None if math.isnan(end) else end for end in ends)
        return cls(value=value, low=low, high=high, n=estimate.n)

    @property
    def estimate(self) -> Estimate:
        """The number as an estimate."""
        value, low, high = (math.nan if end is None else end for end in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.n)


class AttackEntry(_Part):
    """The results of one attack, or of an ensemble."""

    attack: str = Field(description="As the user wrote it.")
    threat_model: str = Field(default="", description="What the attacker has.")
    status: Status
    reason: str = ""
    budget: dict[str, dict[str, Any]] = Field(
        default={}, description="Hyper-parameters of the attack, or of its members."
    )
    metrics: dict[str, Number] = {}
    flags: tuple[str, ...] = ()
    protocol: Facts = Field(default={}, description="How it attacked, beside what the entry's own protocol says.")
    checksum: str = Field(default="", description="Of that: only robust rates with the same one can be compared.")


class Cost(_Part):
    """The cost of the row; null where it was not measured."""

    erasure_seconds: float | None = Field(default=None, description="Of the erasure alone.")
    seconds: float | None = Field(default=None, description="Of erasure, images and judges.")
    attack_seconds: float | None = Field(default=None, description="Of all attacks.")
    peak_memory_mb: float | None = Field(default=None, description="In 10^6 bytes.")
    parameters_changed: int | None = Field(
        default=None, description="Numbers in the weights that the erasure replaces."
    )


class Verified(_Part):
    """A verification: somebody drew all images of an entry again, from its artefacts, and got its numbers."""

    name: str = Field(min_length=1)
    erasebench: str = Field(description="The version that did it.")
    tolerance: float = Field(ge=0, description="By how much a score may have differed.")
    content: str = Field(description="SHA-256 of what was verified; another one means that it was changed since.")


class Entry(_Part):
    """One method, concept and model."""

    format: Literal[1] = 1
    name: str = Field(default="", description="The method's name in print.")
    paper: str = Field(default="", description="A link to where it is described.", pattern=r"^(https?://\S+)?$")
    authors: str = ""
    venue: str = Field(default="", description="Where it appeared, and when.")
    reported: dict[str, FiniteFloat] = Field(
        default={}, description="What the paper says, by metric: ratio, clip, fid; of an attack as asr@unlearndiff."
    )
    external: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = Field(
        default=None, description="A lower robust rate, in per cent, that somebody else has shown."
    )
    source: str = Field(default="", description="Where they have shown it.")
    unreliable: bool | None = Field(
        default=None, description="Whether the robust rate is known to say too much; null where nobody has looked."
    )
    footnote: str = Field(default="", description="Why, or whatever else readers have to know.")
    model: str
    domain: str = Field(description="What the model's images are of.")
    concept: str
    kind: str = Field(description="The sort of concept.")
    method: str = Field(description="As the user wrote it.")
    erasure: dict[str, Any] = Field(
        description="All that decides the erasure: plug-in, version, every hyper-parameter, concepts, seed, precision."
    )
    seed: int = Field(description="Of images, and of the erasure where the method's brackets hold no other.")
    metrics: dict[str, Number] = Field(description="Without an attack.")
    attacks: tuple[AttackEntry, ...] = ()
    flags: tuple[str, ...] = Field(default=(), description="Reasons to doubt the numbers.")
    judge: str = Field(description="Who saw the concept, with version, weights and threshold.")
    judges: dict[str, dict[str, Any]] = Field(description="By what they judge: plug-in, version, SHA-256 of weights.")
    protocol: Facts = Field(description="How it was measured.")
    checksum: str = Field(description="Of the protocol: only entries with the same one can be compared.")
    cost: Cost
    artefacts: dict[str, str] = Field(description="SHA-256 of each file of the folder beside this one.")
    images: dict[str, str] = Field(description="SHA-256 of the images of concept and unrelated prompts, as archives.")
    run: str = Field(description="Hash of the keys of all cells that this was made of.")
    erasebench: str = Field(description="The version that measured.")
    verified_by: Verified | None = None

    @model_validator(mode="after")
    def _reports_what_there_is(self) -> Entry:
        for key in self.reported:
            check_name("number in reported", key, self.numbers)
        return self

    @property
    def numbers(self) -> dict[str, Number]:
        """All numbers, those of attacks as ``metric@attack``."""
        return self.metrics | {
            f"{key}@{one.attack}": number for one in self.attacks for key, number in one.metrics.items()
        }

    @property
    def content(self) -> str:
        """SHA-256 of all that was measured: neither what people filled in, nor who verified it."""
        measured = self.model_dump(mode="json", exclude={*SUBMITTED, "verified_by"})
        return hashlib.sha256(canonical_json(measured).encode()).hexdigest()

    @property
    def verified(self) -> bool:
        """True if it was verified as it is now."""
        return self.verified_by is not None and self.verified_by.content == self.content

    def to_json(self) -> str:
        """The text of the entry's file."""
        return self.model_dump_json(indent=1) + "\n"

    def row(self) -> BoardRow:
        """The entry as a row of the leaderboard."""
        numbers, shown = self.numbers, list(self.metrics)
        shown += [f"{ROBUST}@{one.attack}" for one in self.attacks if one.attack == ENSEMBLE]
        shown += [f"{CONFIRMED}@{one.attack}" for one in self.attacks]
        shown += self.reported
        failed = [f"{one.attack} {one.status}: {one.reason}" for one in self.attacks if one.status != "ok"]
        changed = self.verified_by is not None and not self.verified
        return BoardRow(
            model=self.model,
            method=self.method,
            hyper_parameters=self.erasure.get("parameters", {}),
            concept=self.concept,
            kind=self.kind,
            seed=self.seed,
            status="ok",
            reason="; ".join(failed),
            protocol=self.checksum,
            attack_protocol=next((one.checksum for one in self.attacks if one.attack == ENSEMBLE), ""),
            run=self.run,
            erasebench=self.erasebench,
            judge=self.judge,
            flags=(*self.flags, *(f"{flag}@{one.attack}" for one in self.attacks for flag in one.flags)),
            **self.cost.model_dump(),
            numbers={key: numbers[key].estimate for key in dict.fromkeys(shown) if key in numbers},
            note="changed since it was verified" if changed else "",
            entered=Entered(
                **{name: getattr(self, name) for name in SUBMITTED},
                verified_by=self.verified_by.name if self.verified_by and self.verified else "",
            ),
        )


def read_entry(path: Path) -> Entry:
    """Read an entry.

    Raises:
        EraseBenchError: it cannot be read, or is none; says which field is wrong.
    """
    try:
        return Entry.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EraseBenchError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            try:
                check_name("field", where, Entry.model_fields)
            except EraseBenchError as unknown:
                reason = str(unknown)
        raise EraseBenchError(f"{path} is no entry: {reason}") from None


def read_entries(folder: Path) -> list[Entry]:
    """The entries in a folder, by name of their files; artefacts lie in folders of their own.

    Raises:
        EraseBenchError: a JSON file is no entry.
    """
    return [read_entry(path) for path in sorted(folder.glob("*.json"))]


def read_rows(path: Path) -> list[BoardRow]:
    """The rows of a run folder, of a leaderboard's CSV file, or of a folder of entries.

    Raises:
        EraseBenchError: it is none of these, or damaged.
    """
    if path.is_file():
        return read_leaderboard(path)
    if (path / RECORD).exists() or (path / LEDGER).exists():
        return rows_of_run(read_run(path))
    entries = read_entries(path) if path.is_dir() else []
    if not entries:
        raise EraseBenchError(
            f"{path} is neither the folder of a finished run, nor a leaderboard.csv, nor a folder of entries"
        )
    return [entry.row() for entry in entries]


def write_entry(path: Path, entry: Entry) -> None:
    """Write an entry whole or not at all."""
    write_durably(path, entry.to_json())
