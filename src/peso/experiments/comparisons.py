"""The claims a report makes, each a paired test, and the sentence that says what it found."""

from collections.abc import Sequence
from dataclasses import dataclass

from peso.errors import DataError
from peso.evaluation.significance import Comparison, paired_bootstrap
from peso.experiments.results import Variant

ALPHA = 0.05
NUM_RESAMPLES = 4000


@dataclass(frozen=True)
class Claim:
    """One comparison and its words.

    Attributes:
        ours: name of the variant.
        theirs: name of what it is compared with.
        protocol: "in_block" or "next_block".
        comparison: the numbers.
        sentence: what may be said.
    """

    ours: str
    theirs: str
    protocol: str
    comparison: Comparison
    sentence: str


def make_claims(variants: Sequence[Variant]) -> list[Claim]:
    """Every updated method against frozen and the counts, and every other one against single.

    In-block claims are about NDCG@10, next-block claims about the log-likelihood, which has the power to tell methods
    apart that differ little. Pairs that were not measured on the same targets and seeds are left out.
    """
    claims = []
    for ours in variants:
        if ours.is_rival or ours.method == "frozen":
            continue
        for theirs in variants:
            is_wanted = theirs.method in ("frozen", "successor", "neighbours") or (
                theirs.method == "single" != ours.method
            )
            if not is_wanted or theirs.lists != ours.lists:
                continue
            for protocol, metric in (("in_block", "ndcg@10"), ("next_block", "log_likelihood")):
                if metric == "log_likelihood" and theirs.is_rival:
                    continue
                claim = _claim(ours, theirs, protocol, metric)
                claims += [claim] if claim else []
    return claims


def _claim(ours: Variant, theirs: Variant, protocol: str, metric: str) -> Claim | None:
    frames = ours.targets(protocol), theirs.targets(protocol)
    if any(len(frame) == 0 for frame in frames):
        return None
    try:
        comparison = paired_bootstrap(*frames, metric, NUM_RESAMPLES)
    except DataError:  # other seeds, or a metric that one side lacks: nothing to compare
        return None
    return Claim(ours.name, theirs.name, protocol, comparison, sentence_of(ours.name, theirs.name, comparison))


def sentence_of(ours: str, theirs: str, comparison: Comparison, corrected: float | None = None) -> str:
    """What a comparison allows to be said, in words and numbers.

    Args:
        ours: name of the one side.
        theirs: name of the other side.
        comparison: the numbers.
        corrected: the p-value after a correction for several tests, which then decides; None if there is just one.
    """
    p_value = comparison.p_value if corrected is None else corrected
    unit = " nats" if comparison.metric == "log_likelihood" else ""
    numbers = (
        f"{comparison.ours:.4f} against {comparison.theirs:.4f}{unit}, difference {comparison.difference:+.4f} "
        f"[{comparison.low:+.4f}, {comparison.high:+.4f}], p = {comparison.p_value:.4f}"
    ) + ("" if corrected is None else f", corrected {corrected:.4f}")
    if p_value >= ALPHA:
        return f"Between {ours} and {theirs} no difference can be claimed ({numbers})."
    verb = "is better than" if comparison.difference > 0 else "is worse than"
    return f"{ours} {verb} {theirs} ({numbers})."
