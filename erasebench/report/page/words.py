"""A run's findings in words: sentences whose numbers carry their intervals, and which rank no more than was shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from erasebench.metrics.metric import Description
from erasebench.metrics.paired import LEVEL, PairedComparison
from erasebench.metrics.stats import Estimate
from erasebench.report.attack_tables import RATE, ROBUST, split
from erasebench.report.page.ranking import Ranking, Standing, overlap
from erasebench.report.page.tables import PER_CENT, Scale
from erasebench.report.tradeoff import PRESERVED, RATIO, strongest
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.flags import CONTROLS
from erasebench.results.preservation import Damage
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics

MAX_NAMES = 4
"""So many methods are named in a sentence; of more, how many they are."""
CAUTIONS = {
    "not-erased": "{} did not erase it: more than a quarter of the unerased model's Ratio is left.",
    "base-rarely-draws": "The unerased model itself draws it rarely, so there was little to erase (rows of {}).",
    "attack-below-control": "Some attacks broke less than a control did, and prove nothing of robustness (on {}).",
    "judge-noisy": "The judge also fires without the concept (on {}).",
}
"""Flags that a reader of the sentences has to know of, and what they say of the methods that carry them."""
PAIRED = "by paired tests over the same prompts, with Holm's adjustment for all methods"
APART = "by intervals that do not overlap; methods whose intervals do may be apart all the same"
OVERLAP = "the intervals overlap, which is no proof that nothing changed"
"""The ways of telling methods apart from the unerased model: by tests or, where a metric has no value of a single
prompt, as FID has none, by intervals."""


@dataclass(frozen=True)
class Finding:
    """The findings about one side of a concept: its heading, and sentences."""

    about: str
    text: Markup


def findings(
    rows: Sequence[TableRow], metrics: Metrics, baseline: str, ranking: Ranking, damage: Damage
) -> dict[str, list[Finding]]:
    """By concept, what was found: of the erasure, under attack, of everything else, and what to mind.

    Args:
        rows: the results, of models and of attacks.
        metrics: what there is to say of them.
        baseline: the method that erases nothing.
        ranking: how methods are put in order.
        damage: tests of the methods against the unerased model; metrics without any are compared by intervals.
    """
    models, attacked = split(rows)
    by_concept = {}
    for concept in dict.fromkeys(row.concept for row in rows):
        own = [row for row in models if row.concept == concept]
        tried = [row for row in attacked if row.concept == concept]
        parts = {
            "Erasure": _erasure(own, concept, baseline, ranking),
            "Attacks": _attacks(tried, concept, {baseline, *_not_erased(own)}, ranking),
            "Everything else": _preservation(own, concept, metrics, baseline, damage),
            "Mind": _cautions(own, tried),
        }
        by_concept[concept] = [
            Finding(about, Markup(" ").join(sentences)) for about, sentences in parts.items() if sentences
        ]
    return by_concept


def _erasure(rows: Sequence[TableRow], concept: str, baseline: str, ranking: Ranking) -> list[Markup]:
    sentences = []
    base = next((row.metrics[RATIO] for row in rows if row.method == baseline and _defined(row, RATIO)), None)
    if base:
        sentences.append(_say("Unerased, the model shows {} in {} of {} images.", concept, _per_cent(base), base.n))
    standings = ranking.order(RATIO, [row for row in rows if row.method != baseline])
    if not standings:
        return sentences
    best, tied, rest = _groups(standings)
    if len(standings) == 1:
        return [*sentences, _say("{} leaves {}.", _names(best), _per_cent(best[0].estimate))]
    collapsed = [row.method for row in rows if "collapsed" in row.flags]
    sentences.append(_say("Least is left by {}: {}.", _names(best, collapsed), _per_cent(best[0].estimate)))
    if tied and not rest:
        sentences.append(_say("No other method can be told apart from that: {}.", ranking.reason))
    elif tied:
        sentences.append(_say("{} cannot be told apart from that: {}.", _names(tied, collapsed), ranking.reason))
    if rest:
        sentences.append(_say("More is left by {}{}: {}.", *_last(rest, "most by"), _per_cent(rest[-1].estimate)))
    return sentences


def _not_erased(rows: Sequence[TableRow]) -> list[str]:
    return [row.method for row in rows if "not-erased" in row.flags]


def _attacks(rows: Sequence[TableRow], concept: str, omitted: Collection[str], ranking: Ranking) -> list[Markup]:
    """Sentences on what attacks bring back from erased models; there is nothing to bring back from others."""
    rows = [row for row in rows if row.method not in omitted]
    sentences = []
    standings = ranking.order(ROBUST, [row for row in rows if row.attack == ENSEMBLE])
    if standings:
        best, tied, rest = _groups(standings)
        first = best[0].estimate
        sentences.append(
            _say(
                "After all attacks together {} the most prompts: {} of {} that the unerased model draws.",
                *(_say("{} {}", _names(best), "keeps" if len(best) == 1 else "keep"), _per_cent(first), first.n),
            )
        )
        if tied:
            sentences.append(_say("{} cannot be told apart from that: {}.", _names(tied), ranking.reason))
        if rest:
            sentences.append(
                _say("Fewer are kept by {}{}: {}.", *_last(rest, "fewest by"), _per_cent(rest[-1].estimate))
            )
    return [*sentences, *_single_attacks(rows, concept)]


def _single_attacks(rows: Sequence[TableRow], concept: str) -> list[Markup]:
    """Sentences on what attacks bring back one by one, and what controls do."""
    sentences = []
    strongest_attacks = {
        method: strongest([row for row in rows if row.method == method and row.attack != ENSEMBLE])
        for method in dict.fromkeys(row.method for row in rows)
    }
    known = {method: (attack, rate) for method, (attack, rate) in strongest_attacks.items() if rate}
    if known:
        method = max(known, key=lambda one: known[one][1].value)
        rate = known[method][1]
        if not rate.value:
            sentences.append(
                _say(
                    "No single attack, controls left out, brings {} back from {}: {} of {} prompts.",
                    *(concept, _listed(map(_name, known)), _per_cent(rate), rate.n),
                )
            )
        else:
            strong = [
                _say("{} on {}", _code(one), _name(on))
                for on, (one, other) in known.items()
                if other.value == rate.value
            ]
            sentences.append(
                _say(
                    "The strongest single attack, controls left out, is {}: it brings {} back on {} of {} prompts.",
                    *(_listed(strong), concept, _per_cent(rate), rate.n),
                )
            )
        firm = [one for one, (_, other) in known.items() if rate.value and not overlap(other, rate)]
        if firm:
            highest = max((known[one][1] for one in firm), key=lambda one: one.value)
            sentences.append(
                _say("On {} no such attack reaches more than {}.", _listed(map(_name, firm)), _per_cent(highest))
            )
    controls = [row for row in rows if row.attack in CONTROLS and _defined(row, RATE) and row.metrics[RATE].value]
    if controls:
        row = max(controls, key=lambda one: one.metrics[RATE].value)
        sentences.append(
            _say(
                "Controls, which know nothing of the model, reach up to {} ({} on {}).",
                *(_per_cent(row.metrics[RATE]), _code(row.attack), _name(row.method)),
            )
        )
    return sentences


def _preservation(
    rows: Sequence[TableRow], concept: str, metrics: Metrics, baseline: str, damage: Damage
) -> list[Markup]:
    sentences = []
    collapsed = [row for row in rows if "collapsed" in row.flags]
    if collapsed:
        sentences.append(_say("{} may have destroyed the model rather than erased the concept.", _names(collapsed)))
    for key in PRESERVED:
        base = next((row.metrics[key] for row in rows if row.method == baseline and _defined(row, key)), None)
        known = [row for row in rows if row.method != baseline and _defined(row, key)]
        if base and known and key in metrics:
            sentences += _changes(known, base, key, metrics[key], damage.get((concept, key), {}))
    return sentences


def _changes(
    rows: Sequence[TableRow], base: Estimate, key: str, metric: Description, tests: Mapping[str, PairedComparison]
) -> list[Markup]:
    """The methods that changed a metric of what is kept, by tests where it has any and by intervals otherwise."""
    scale, sign = Scale.of(rows, key, metric), -1 if metric.direction == "higher" else 1
    unerased = _number(base, scale)
    losses = {row.method: sign * (row.metrics[key].value - base.value) for row in rows}
    apart = [
        row
        for row in sorted(rows, key=lambda row: losses[row.method])
        if (tests[row.method].p < LEVEL if tests else not overlap(row.metrics[key], base))
    ]
    if not apart:
        why = PAIRED if tests else OVERLAP
        same = "No method can be told apart from the unerased model by {} ({} unerased): {}."
        return [_say(same, metric.title, unerased, why)]
    sentences = []
    for word, changed in (
        ("worse", [row for row in apart if losses[row.method] > 0]),
        ("better", [row for row in reversed(apart) if losses[row.method] < 0]),
    ):
        if changed:
            extreme = changed[-1]
            names = _names(changed), _say("; most with {}", _name(extreme.method)) if len(changed) > 1 else Markup()
            by = _say(", by {}", _number(tests[extreme.method].difference, scale)) if tests else ""
            numbers, how = (_number(extreme.metrics[key], scale), unerased, by), PAIRED if tests else APART
            changed_so = "{} is {} with {}{}: {} against {} unerased{}; {}."
            sentences.append(_say(changed_so, metric.title, word, *names, *numbers, how))
    return sentences


def _cautions(rows: Sequence[TableRow], attacked: Sequence[TableRow]) -> list[Markup]:
    sentences = []
    every = [*rows, *attacked]
    for flag, sentence in CAUTIONS.items():
        carriers = {row.method: row for row in every if flag in row.flags}
        if carriers:
            sentences.append(_say(sentence, _names(list(carriers.values()))))
    wide = [row for row in rows if "wide" in row.flags]
    if wide:
        images = min(row.metrics[RATIO].n for row in wide)
        sentences.append(
            _say("With {} images, {} of {} Ratios are too uncertain to rank by.", images, len(wide), len(rows))
        )
    for status, became in (("failed", "failed"), ("n/a", "could not be made")):
        count = sum(row.status == status for row in every)
        if count:
            sentences.append(_say("{} {} {}: see failures.", count, "row" if count == 1 else "rows", became))
    return sentences


def _defined(row: TableRow, key: str) -> bool:
    return key in row.metrics and row.metrics[key].defined


def _groups(standings: Sequence[Standing]) -> tuple[list[Standing], list[Standing], list[Standing]]:
    """Those of the best value, the others that cannot be told apart from it, and the rest."""
    best = [one for one in standings if one.leading and one.estimate.value == standings[0].estimate.value]
    tied = [one for one in standings if one.leading and one not in best]
    return best, tied, [one for one in standings if not one.leading]


def _last(standings: Sequence[Standing], extreme: str) -> tuple[Markup, Markup]:
    """Methods, and if their numbers differ those of the last number, which follows."""
    last = [one for one in standings if one.estimate.value == standings[-1].estimate.value]
    return _names(standings), _say("; {} {}", extreme, _names(last)) if len(last) < len(standings) else Markup()


def _say(sentence: str, *parts: object) -> Markup:
    """A sentence with parts put in; those that are no markup are escaped."""
    return Markup(sentence).format(*parts)


def _name(method: str) -> Markup:
    return Markup("<strong>{}</strong>").format(method)


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def _names(methods: Sequence[Standing | TableRow], collapsed: Collection[str] = ()) -> Markup:
    """Methods in a sentence; those of which nothing else may be left either say so."""
    return _listed(_name(one.method) + (" (collapsed)" if one.method in collapsed else "") for one in methods)


def _listed(parts: Iterable[Markup]) -> Markup:
    """Parts in a sentence: ``a, b and c``; of many the first and how many more."""
    shown = list(parts)
    if len(shown) > MAX_NAMES + 1:
        shown = [*shown[:MAX_NAMES], _say("{} more", len(shown) - MAX_NAMES)]
    return Markup(" and ").join([*([Markup(", ").join(shown[:-1])] if shown[:-1] else []), shown[-1]])


def _per_cent(estimate: Estimate) -> Markup:
    value, interval = PER_CENT.words(estimate)
    return _say('<span class="num">{} %{}</span>', value, f" {interval}" if interval else "")


def _number(estimate: Estimate, scale: Scale) -> Markup:
    value, interval = scale.words(estimate)
    return _say('<span class="num">{}{}</span>', value, f" {interval}" if interval else "")
