"""The base class of metrics, and what a metric is given: the scores, features and images of one row of the table.

A metric is one file that registers a class; nothing else has to know of it::

    @METRICS.register("brightest")
    class Brightest(Metric):
        probes = ("concept",)
        title = "Highest score"
        direction = "lower"
        meaning = "highest score of the concept in any image"

        def measure(self, measured, base):
            scores = measured.probe("concept").score
            return Estimate(scores.max(), math.nan, math.nan, len(scores))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from erasebench.errors import EraseBenchError, check_name
from erasebench.judging import scored_labels
from erasebench.metrics.stats import Estimate
from erasebench.registry import METRICS, warn

if TYPE_CHECKING:
    import pandas as pd

PROBES = ("concept", "synonyms", "others", "composition", "retain", "reference", "attacked")
"""The image sets of a row: prompts for its concept, prompts for it by synonyms alone, prompts for other concepts, each
judged for itself, prompts for it and another concept at once, judged for the other, prompts that do not show it,
reference images, which are the same for every row, and what an attack drew; a row of an attack has only this last."""
STANDARD_PROBES = ("concept", "retain", "reference", "attacked")
"""Those that do not depend on what else a run asks for."""
ROLES = ("clip", "distance")
"""The questions to further judges of the domain: CLIP score with the image's own prompt, and how far the image is from
the unerased model's of the same prompt and seed."""

Direction = Literal["lower", "higher"]


@dataclass(frozen=True)
class Probe:
    """The images of one probe and what was made of them; nothing is read before it is asked for.

    Attributes:
        images: reads uint8 ``[n, height, width, 3]``; None where no images are kept.
        features: reads float32 ``[n, d]``; None where no judge gave any.
        features_of: what a table calls these features.
        judged: reads everything that the first judge says of each image, in the order of their scores: a column for
            each of its own.
        roles: by role, reads the score of each image by the domain's judge of that role; ``judges`` names these judges.
        role_features: by role, reads this judge's features, float32 ``[n, d]``, if it gives any.
    """

    images: Callable[[], NDArray[np.uint8]] | None = None
    features: Callable[[], NDArray[np.float32]] | None = None
    features_of: str = ""
    judged: Callable[[], pd.DataFrame] | None = None
    roles: Mapping[str, Callable[[], pd.Series]] = field(default_factory=dict)
    judges: Mapping[str, str] = field(default_factory=dict)
    role_features: Mapping[str, Callable[[], NDArray[np.float32]]] = field(default_factory=dict)


def _no_rows() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True)
class Measured:
    """All that was measured of one row.

    Attributes:
        method: the row's, as the user wrote it.
        concept: the name of what was erased; ``kind`` its kind, one of :data:`~erasebench.concepts.KINDS`.
        scores: one row an image and judge label, with the columns of :data:`~erasebench.results.scores.COLUMNS`, and
            ``shown``: whether the score reaches the judge's threshold (never, if it has none).
        probes: the row's probes by name.
        attacks: of a row with the probe "attacked": one row a prompt, with the columns of
            :data:`~erasebench.results.attacks.COLUMNS`.
        before: the same of the prompts as they are, with no attack, on the same model.
        floor: the same of the attack on prompts and a model that have nothing to do with the concept.
        second: what a second judge says of the images of the probe "concept", with the columns of ``scores``; empty
            without one.  No number but its agreement with the first counts it.
        judge: who saw the concept, with version, weights, label and threshold, as tables name it.
    """

    method: str
    concept: str
    kind: str
    scores: pd.DataFrame
    probes: Mapping[str, Probe]
    attacks: pd.DataFrame = field(default_factory=_no_rows)
    before: pd.DataFrame = field(default_factory=_no_rows)
    floor: pd.DataFrame = field(default_factory=_no_rows)
    second: pd.DataFrame = field(default_factory=_no_rows)
    judge: str = ""

    @cached_property
    def with_before(self) -> pd.DataFrame:
        """The prompts that were tried with the attack and without; the columns of the latter end in "_before"."""
        if not len(self.attacks) or not len(self.before):
            return self.attacks[:0]
        return self.attacks.merge(
            self.before, on="prompt_id", suffixes=("", "_before"), validate="one_to_one", sort=False
        )

    def probe(self, name: str) -> pd.DataFrame:
        """The scores of one probe, in the order of its images."""
        return self.scores[self.scores["probe"] == name]

    def images(self, probe: str) -> NDArray[np.uint8]:
        """The images of a probe, uint8 ``[n, height, width, 3]``, in the order of their scores.

        Raises:
            KeyError: the row has no images of such a probe.
        """
        read = self.probes[probe].images
        if read is None:
            raise KeyError(f"there are no images of the probe '{probe}'")
        return read()

    def features(self, probe: str, role: str = "") -> NDArray[np.float32]:
        """The features of a probe's images, float32 ``[n, d]``, in the order of their scores.

        Args:
            probe: whose; those that FID compares.
            role: of the domain's judge whose features are wanted instead, see :class:`Metric`.

        Raises:
            KeyError: the row has no features of such a probe.
        """
        read = self.probes[probe].role_features.get(role) if role else self.probes[probe].features
        if read is None:
            raise KeyError(f"there are no features of the probe '{probe}'")
        return read()

    def judged(self, probe: str) -> pd.DataFrame:
        """Everything that the first judge says of a probe's images: the rows of :meth:`probe`, a column for each score.

        Where a probe's images have several first judges, a column that one of them has not is nan.

        Raises:
            KeyError: the row has no such probe.
        """
        read = self.probes[probe].judged
        if read is None:
            raise KeyError(f"nobody judged the probe '{probe}'")
        return read()

    def ranks(self, probe: str) -> pd.Series:
        """The rank of each image's own label, 1 for the highest score, over the rows of :meth:`probe`.

        It is the judge's own, in a column ``LABEL rank``, which may be among more labels than it has scores for; where
        there is none, the rank among the columns that there are.
        """
        import pandas as pd

        frame, scores = self.judged(probe), self.probe(probe)
        ranks = np.empty(len(frame))
        for label, rows in scores.groupby("label", sort=False).indices.items():
            own = frame.iloc[rows]
            stated = f"{label} rank"
            if stated in own and own[stated].notna().all():
                ranks[rows] = own[stated]
            else:
                ranks[rows] = 1 + own[scored_labels(own)].gt(own[label], axis=0).sum(axis=1)
        return pd.Series(ranks, index=frame.index, name="rank")

    def asked(self, role: str, probe: str) -> pd.Series:
        """The score of each image of a probe by the domain's judge of a role, over the rows of :meth:`probe`.

        Raises:
            KeyError: nobody was asked; a metric says whom it needs, see :class:`Metric`.
        """
        return self.probes[probe].roles[role]()


@dataclass(frozen=True)
class Description:
    """The description of a metric in a table; see :class:`Metric`."""

    title: str
    unit: str = ""
    direction: Direction | None = None
    meaning: str = "a metric of this suite"
    caveat: str = ""
    noted: str = ""
    details: bool = False


class Metric(ABC):
    """A column of the table.

    A row's metric is measured where the row has all of its probes; where one is missing, the row goes without.

    Attributes:
        probes: the image sets that it needs, of :data:`PROBES`.
        roles: by role, of :data:`ROLES`, the image sets that the domain's judge of that role has to see.
        on_request: only runs that name it among their metrics have it.
        title: the column's heading; ``unit`` stands behind it in parentheses.
        direction: which way is better.
        meaning: what it measures, for the legend; ``caveat`` follows the direction there.
        noted: what :meth:`note` names, such as "features": a column of the CSV, and the unit in the heading.
        details: only the files hold it, not the terminal's table.
        second_judge: it needs what a second judge says; a row without one goes without.
        order: columns stand in this order, and by name.
    """

    probes: ClassVar[tuple[str, ...]]
    title: ClassVar[str]
    unit: ClassVar[str] = ""
    direction: ClassVar[Direction]
    meaning: ClassVar[str]
    caveat: ClassVar[str] = ""
    noted: ClassVar[str] = ""
    details: ClassVar[bool] = False
    second_judge: ClassVar[bool] = False
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    on_request: ClassVar[bool] = False
    order: ClassVar[int] = 100

    @abstractmethod
    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """Measure a row.

        Args:
            measured: the row.
            base: the unerased model's row of the same concept, with the same prompts and seeds; for that row itself the
                row; None where it failed.
        """

    def values(self, measured: Measured, base: Measured | None) -> pd.Series | None:
        """The values that a row's number is the mean of, so that methods can be compared prompt by prompt.

        Args:
            measured: as of :meth:`measure`; ``base`` likewise.

        Returns:
            One value an image, with the prompt's id as index: bool where it is a hit or a miss.  None where the number
            is no mean over images of prompts that are the same for every method.
        """
        return None

    def note(self, measured: Measured) -> str:
        """The dependencies of a number of this row that readers have to know, such as whose features were compared."""
        return ""

    @classmethod
    def description(cls) -> Description:
        """Its description in a table."""
        return Description(cls.title, cls.unit, cls.direction, cls.meaning, cls.caveat, cls.noted, cls.details)


def load_metrics() -> dict[str, Metric]:
    """Every registered metric by name, in the order of the table's columns.

    One of another package that cannot be used is left out with a warning.

    Raises:
        EraseBenchError: one of the user's own files is wrong: what, and how it should be.
    """
    metrics: dict[str, Metric] = {}
    for name in METRICS.names():
        try:
            plugin = METRICS.get(name)
            metrics[name] = _checked(name, plugin.make, plugin.presets)
        except EraseBenchError as error:
            if not METRICS.is_foreign(name):
                raise
            warn(f"a metric of another package is left out: {error}")
    return dict(sorted(metrics.items(), key=lambda item: (item[1].order, item[0])))


def standard_numbers(numbers: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The numbers of a row, by metric, that do not depend on what else its run asked for.

    Without those of second judges, those on request, and those of image sets that only some runs have.
    """
    not_standard = {
        name
        for name, metric in load_metrics().items()
        if metric.second_judge or metric.on_request or metric.roles or not {*metric.probes} <= {*STANDARD_PROBES}
    }
    return {name: number for name, number in numbers.items() if name not in not_standard}


def asked_metrics(names: Collection[str] = ()) -> dict[str, Metric]:
    """The metrics of a run, in the order of the table's columns: those of every run, and those that it names."""
    return {name: metric for name, metric in load_metrics().items() if not metric.on_request or name in names}


def describe_metrics() -> dict[str, Description]:
    """The description of every registered metric, in the order of the table's columns."""
    return {name: metric.description() for name, metric in load_metrics().items()}


def _checked(name: str, make: Callable[..., Metric], presets: Mapping[str, Any]) -> Metric:
    for attribute in ("probes", "title", "direction", "meaning"):
        if not getattr(make, attribute, None):
            raise EraseBenchError(f"the metric '{name}' has no {attribute}; see erasebench.metrics.metric.Metric")
    metric = make(**presets)
    for probe in metric.probes:
        check_name(f"probe of the metric '{name}'", probe, PROBES)
    for role, probes in metric.roles.items():
        check_name(f"role of the metric '{name}'", role, ROLES)
        for probe in probes:
            check_name(f"probe of the metric '{name}'", probe, metric.probes)
    check_name(f"direction of the metric '{name}'", metric.direction, ("lower", "higher"))
    return metric
