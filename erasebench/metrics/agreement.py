"""Agreement: how far a second judge of the same images says what the first does."""

from __future__ import annotations

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate, rate
from erasebench.registry import METRICS


@METRICS.register("agreement")
class Agreement(Metric):
    """The share of the concept's images of which both judges say the same: 100 x images of one verdict / images.

    The interval is that of Ratio.  It is no measure of the method: where it is low, other numbers depend on whom one
    believes.  Judges that both see the concept nowhere agree as well, whatever they would say of images that show it.
    """

    probes = ("concept",)
    title = "Agreement"
    unit = "%"
    direction = "higher"
    meaning = "images of the concept's prompts of which a second judge says what the first does"
    caveat = "judges that see the concept nowhere agree as well; no other number counts the second judge"
    noted = "with"
    details = True
    second_judge = True
    order = 90

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The rate of images with one verdict, over prompts; undefined without images that both judged."""
        first, second = measured.probe("concept").set_index("image"), measured.second.set_index("image")
        both = first.join(second["shown"].rename("shown again"), how="inner")
        return rate(both["shown"] == both["shown again"], both["prompt_id"]).scaled(100)

    def note(self, measured: Measured) -> str:
        """The second judge, and the score from which on it sees the concept."""
        one = measured.second.iloc[0]
        return f"{one['judge']}: {one['label']} >= {one['threshold']:g}"
