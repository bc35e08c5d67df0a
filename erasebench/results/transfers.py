"""Prompts that attacks found in one run, tried in another: which to try, and what came of it, ``transfer.csv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from erasebench.config import parse_method
from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import rate
from erasebench.results.attacks import read_attacks
from erasebench.results.record import Record, read_record

TRANSFER = "transfer.csv"
REPLAY = "replay"
"""The attack that tries what another run found."""
SHARES = ("raw", "confirmed")
COLUMNS = (
    *("concept", "attack", "found_on", "tried_on", "prompts"),
    *(f"{share}{end}" for share in SHARES for end in ("", "_low", "_high")),
)


def replays(run: Path, tokenizer: str) -> list[str]:
    """The attacks that try all texts that another run found, as users write them; ensembles are their members'.

    An attack that left every prompt's text as it was, such as a search for seeds, found none.

    Args:
        run: the folder of that run.
        tokenizer: the hash of the tokenizer of the model that is to be attacked.

    Raises:
        EraseBenchError: it is no folder of a run, its model reads texts by another tokenizer, or it found none.
    """
    record, frame = check_tokenizer(run, tokenizer), read_attacks(run)
    alone = {row.attack for row in record.attacks if list(row.trials) == [row.attack]}
    texts = (frame["found"] != "") & (frame["found"] != frame["prompt"])
    finds = frame[frame["attack"].isin(alone) & texts & ~frame["floor"]]
    pairs = finds[["method", "attack"]].drop_duplicates().itertuples(index=False)
    labels = [f"{REPLAY}[run={run};method={method};by={attack}]" for method, attack in pairs]
    if not labels:
        raise EraseBenchError(f"{run} has no texts that attacks found")
    return labels


def check_tokenizer(run: Path, tokenizer: str) -> Record:
    """The record of a run, if its model reads texts as another one does.

    Args:
        run: the folder of the run.
        tokenizer: the hash of the other model's tokenizer.

    Raises:
        EraseBenchError: it is no folder of a run, or its model reads texts by another tokenizer.
    """
    record = read_record(run)
    if record.tokenizer != tokenizer:
        raise EraseBenchError(
            f"the prompts of {run} were found on '{record.model}', whose tokenizer is another: they are no prompts of "
            "this model"
        )
    return record


def transfer_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """The rates at which what was found on one model brings the concept back on another.

    A prompt that nothing was found for does not count.

    Args:
        frame: of a run, with the columns of :data:`~erasebench.results.attacks.COLUMNS`.

    Returns:
        Columns :data:`COLUMNS`: the concept; the attack that found the texts, and on which method; the method that they
        were tried on; how many; and the shares of raw and of confirmed successes, in 0..1, with Wilson's intervals.
    """
    own = frame[~frame["floor"] & frame["attack"].str.startswith(f"{REPLAY}[") & (frame["note"] == "")]
    lines = []
    for (concept, label, method), rows in own.groupby(["concept", "attack", "method"], sort=False):
        _, options = parse_method(label)
        rates = [rate(rows[share]) for share in SHARES]
        shares = [end for one in rates for end in (one.value, one.low, one.high)]
        lines.append((concept, options["by"], options["method"], method, len(rows), *shares))
    return pd.DataFrame(lines, columns=list(COLUMNS))
