"""The images of a run that are blurred: those that may show a sensitive concept, unless its domain is harmless."""

from __future__ import annotations

from erasebench.concepts import SENSITIVE_KINDS, load_catalogue
from erasebench.domains import DOMAINS
from erasebench.results.record import Record
from erasebench.results.run_folder import RunFolder


def is_blurred(record: Record, kind: str) -> bool:
    """True if images of concepts of a kind are blurred unless asked for."""
    return kind in SENSITIVE_KINDS and not DOMAINS[record.domain].harmless


def sensitive_unrelated(run: RunFolder) -> set[tuple[str, int]]:
    """The unrelated prompts and seeds that show a sensitive concept, whether the run erased it or not.

    The record says what a prompt shows.  In those of older versions, that is known of the run's own concepts, whose
    rows leave such prompts out.
    """
    rows = run.scores[run.scores["probe"] == "retain"]
    pairs = {
        concept: set(zip(own["prompt_id"], own["seed"], strict=True))
        for concept, own in rows.groupby("concept", sort=False)
    }
    kinds = {row.concept: row.kind for row in run.record.rows}
    sensitive = [own for name, own in pairs.items() if is_blurred(run.record, kinds[name])]
    every = set().union(*pairs.values())
    omitted = set().union(*(every - own for own in sensitive))
    listed = _sensitive_prompts(run)
    return omitted | {(prompt, seed) for prompt, seed in every if prompt in listed}


def shows_sensitive_others(run: RunFolder) -> bool:
    """True if other concepts that a run was asked for are sensitive, or of a kind that nobody here knows."""
    probes = [row.probes["others"] for row in run.record.rows if "others" in row.probes]
    return bool(_sensitive(run, {one.concept for probe in probes for one in probe.judged}))


def _sensitive_prompts(run: RunFolder) -> set[str]:
    """The unrelated prompts that a record says show a sensitive concept, or one whose kind nobody here knows."""
    sensitive = _sensitive(run, {name for shown in run.record.shows.values() for name in shown})
    return {prompt for prompt, shown in run.record.shows.items() if sensitive & set(shown)}


def _sensitive(run: RunFolder, names: set[str]) -> set[str]:
    """Those of some concepts whose images are blurred, or whose kind nobody here knows; none where no images are."""
    if not any(is_blurred(run.record, kind) for kind in SENSITIVE_KINDS):
        return set()
    catalogue = load_catalogue()
    kinds = {name: catalogue.get(name).kind for name in catalogue.names()}
    kinds |= {row.concept: row.kind for row in run.record.rows}
    return {name for name in names if name not in kinds or is_blurred(run.record, kinds[name])}
