"""The values of single images in two runs, paired by prompt, and how they differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from erasebench.engine.opening import store_to_read
from erasebench.errors import EraseBenchError
from erasebench.metrics.paired import Z_POWER, PairedComparison, Z, add_spread, compare_paired
from erasebench.metrics.stats import Estimate
from erasebench.results.flags import MAX_DRIFT
from erasebench.results.measure import collect, prompt_values
from erasebench.results.row_pairs import RowPair, row_key
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.scores import split_judges
from erasebench.results.verdicts import POINTS, Change


@dataclass(frozen=True)
class PairedSample:
    """The values of single images in two runs, with the prompts as index."""

    before: pd.Series
    after: pd.Series
    unmoved: bool
    error: float = 0.0
    """The standard error that the difference has through the seeds of erasures, with ``freedom`` degrees of freedom."""
    freedom: int = 0


def trials_of(attacks: pd.DataFrame, key: tuple[str, str, str]) -> pd.DataFrame:
    """The trials of a row, without those of the floor."""
    method, concept, attack = key
    own = (attacks["method"] == method) & (attacks["concept"] == concept) & (attacks["attack"] == attack)
    return attacks[own & ~attacks["floor"]]


class RunValues:
    """The values of single images of a run.

    Attributes:
        of: by method, concept and attack, and then by metric: one value an image, with the prompt as index.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        first, _ = split_judges(run.record, run.scores)
        self._images = dict(list(first.groupby(["method", "concept", "probe"], sort=False)))
        # Where it is not there, neither are the images, which few metrics ask for.
        store = store_to_read(run.config.store)
        self.of = prompt_values(collect(run.record, run.scores, store, run.attacks), run.record)

    def scores(self, row: TableRow, probe: str) -> pd.DataFrame:
        """The images or trials of a row, in the run's order, and what judges said of them."""
        if row.attack:
            return trials_of(self._run.attacks, row_key(row))
        return self._images.get((row.method, row.concept, probe), self._run.scores[:0])


def sample_of(
    metric: str, unit: str, probes: Iterable[str], pair: RowPair, base: RunValues, new: RunValues
) -> PairedSample | None:
    """The values of a row's images in two runs, of prompts that have some in both; None if there are none."""
    before, after = base.of[row_key(pair.old)].get(metric), new.of[row_key(pair.new)].get(metric)
    if before is None or after is None:
        return None
    # Which prompts a robust rate is of depends on what the unerased model draws.
    before, after = before[before.index.isin(after.index)], after[after.index.isin(before.index)]
    if not len(before):
        return None
    unmoved = all(
        _is_unmoved(
            base.scores(pair.old, probe), new.scores(pair.new, probe), MAX_DRIFT * (100 if probe == "retain" else 1)
        )
        for probe in probes
        if probe != "reference"  # which the protocol says is the same
    )
    # A metric may look at the images themselves, of which the judges' scores say nothing.
    return PairedSample(before, after, unmoved and _are_same(before, after, unit))


def _are_same(before: pd.Series, after: pd.Series, unit: str) -> bool:
    """True if images have the same values but for rounding, of which the metric's scale tells how much it is."""
    if before.dtype == bool or not before.index.equals(after.index):
        return bool(before.equals(after))
    drift = MAX_DRIFT * (100 if unit in POINTS else float(before.abs().mean()))
    return bool(((after - before).abs() <= drift).all())


def _is_unmoved(before: pd.DataFrame, after: pd.DataFrame, drift: float) -> bool:
    """True if the same prompts and seeds, which runs have in the same order, have the same scores."""
    if not len(before) or len(before) != len(after):
        return False
    same = all((before[name].to_numpy() == after[name].to_numpy()).all() for name in ("prompt_id", "seed"))
    return same and not (np.abs(before["score"].to_numpy() - after["score"].to_numpy()) > drift).any()


def pool_samples(samples: Sequence[tuple[RowPair, PairedSample]], shared: bool) -> PairedSample:
    """The images of several rows of a method together: concepts, seeds of its erasure, or both.

    Args:
        samples: of each row.
        shared: the prompts are the same for every concept, so that a prompt has an image of each.
    """
    before, after = (
        pd.concat([_under(getattr(sample, side), "" if shared else f"{pair.new.concept}/") for pair, sample in samples])
        for side in ("before", "after")
    )
    return PairedSample(before, after, all(sample.unmoved for _, sample in samples), *_seed_error(samples, shared))


def _seed_error(samples: Sequence[tuple[RowPair, PairedSample]], shared: bool) -> tuple[float, int]:
    """The standard error of a pooled difference through erasures, and its degrees of freedom; zeros if none has seeds.

    The differences of a concept's erasures vary by what erasures differ by, and a little by the noise of their images,
    which makes it rather too large.  The variance is taken to be that of every concept.
    """
    differences: dict[str, list[float]] = {}
    prompts: dict[str, int] = {}
    for pair, sample in samples:
        after, before = (_prompt_means(side.astype(float)) for side in (sample.after, sample.before))
        differences.setdefault(pair.new.concept, []).append(float(after.mean() - before.mean()))
        prompts[pair.new.concept] = len(after)
    counts = np.array([len(own) for own in differences.values()])
    freedom = int((counts - 1).sum())
    if not freedom:
        return 0.0, 0
    variance = sum(float(np.var(own)) * len(own) for own in differences.values()) / freedom
    # A prompt of one concept is one of all prompts; one that all share has as many images of each as it has erasures.
    weights = counts if shared else np.array(list(prompts.values()))
    return math.sqrt(variance * float((weights**2 / counts).sum())) / float(weights.sum()), freedom


def _under(values: pd.Series, prefix: str) -> pd.Series:
    return values.set_axis(prefix + values.index) if prefix else values


Compared = tuple[PairedComparison, float, float]
"""A comparison, and the values before and after, all in the metric's unit."""


def compare_sample(change: Change, sample: PairedSample) -> Compared:
    """Compare the values of images, prompt by prompt.

    Args:
        change: whose values they are.
        sample: the values.

    Raises:
        EraseBenchError: they cannot be compared, since one is not finite.
    """
    try:
        compared = compare_paired(sample.after, sample.before)
    except ValueError as error:
        raise EraseBenchError(f"{change.metric} of {change.row} cannot be compared: {error}") from error
    if sample.freedom:
        compared = add_spread(compared, sample.error, sample.freedom)
    scale = 100 if sample.before.dtype == bool else 1
    means = [scale * float(_prompt_means(side).mean()) for side in (sample.before, sample.after)]
    difference, detectable = compared.difference.scaled(scale), scale * compared.detectable
    return replace(compared, difference=difference, detectable=detectable), means[0], means[1]


def _prompt_means(values: pd.Series) -> pd.Series:
    return values if values.index.is_unique else values.groupby(level=0).mean()


def compare_intervals(metric: str, pair: RowPair) -> Compared | None:
    """Compare two estimates by their intervals, as if normal and independent; None if one has none.

    The same prompts and seeds make two runs resemble each other, so that this finds less than there is.
    """
    from scipy.stats import norm

    before, after = pair.old.metrics.get(metric), pair.new.metrics.get(metric)
    # Upper limits: FID's lower one is cut off at 0.
    reach = math.hypot(before.high - before.value, after.high - after.value) if before and after else math.nan
    if not before or not after or math.isnan(reach):
        return None
    difference, error = after.value - before.value, reach / Z
    p = float(2 * norm.sf(abs(difference) / error)) if error else float(difference == 0)
    estimate = Estimate(difference, difference - reach, difference + reach, min(before.n, after.n))
    return PairedComparison(estimate, p, "two intervals, unpaired", (Z + Z_POWER) * error), before.value, after.value
