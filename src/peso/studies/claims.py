"""The paired tests of a study, corrected within each family, and the sentences that they allow."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from peso.evaluation.significance import Comparison, holm, paired_bootstrap
from peso.evaluation.summary import metric_values
from peso.experiments.comparisons import ALPHA, NUM_RESAMPLES, sentence_of
from peso.experiments.results import Variant
from peso.studies.measures import Measure
from peso.studies.plan import Pair


@dataclass(frozen=True)
class PairedTest:
    """One comparison of a study.

    Attributes:
        pair: what is compared.
        measure: on what.
        group: the user group it is restricted to; None for all users.
        comparison: the numbers.
        corrected: the p-value after Holm's correction within the family and measure.
        num_corrected: tests that were corrected together.
    """

    pair: Pair
    measure: Measure
    group: str | None
    comparison: Comparison
    corrected: float
    num_corrected: int

    @property
    def is_claimed(self) -> bool:
        """Whether a difference may be claimed."""
        return self.corrected < ALPHA

    def as_json(self) -> dict[str, Any]:
        """Every figure of the test."""
        head = {
            "ours": self.pair.ours,
            "theirs": self.pair.theirs,
            "family": self.pair.family,
            "protocol": self.measure.protocol,
            "group": self.group,
        }
        names = {"ours": "ours_mean", "theirs": "theirs_mean"}
        figures = {names.get(name, name): value for name, value in asdict(self.comparison).items()}
        return head | figures | {"p_value_holm": self.corrected, "tests_in_family": self.num_corrected}


def run_tests(
    variants: Mapping[str, Variant], pairs: Sequence[Pair], measures: Sequence[Measure], group: str | None = None
) -> list[PairedTest]:
    """Compares every pair on every measure that both sides have.

    Args:
        variants: by name.
        pairs: what to compare; those of one family are corrected together, per measure.
        measures: on what.
        group: a user group to restrict targets to.
    """
    tests: list[PairedTest] = []
    for measure in measures:
        for family in dict.fromkeys(pair.family for pair in pairs):
            found = []
            for pair in pairs:
                ours, theirs = (_targets(variants[name], measure, group) for name in (pair.ours, pair.theirs))
                if pair.family == family and ours is not None and theirs is not None:
                    found.append((pair, paired_bootstrap(ours, theirs, measure.metric, NUM_RESAMPLES)))
            tests += correct_together(found, measure, group)
    return tests


def correct_together(
    found: Sequence[tuple[Pair, Comparison]], measure: Measure, group: str | None = None
) -> list[PairedTest]:
    """The comparisons of one family, with Holm's correction over all of them."""
    corrected = holm([comparison.p_value for _, comparison in found])
    return [
        PairedTest(pair, measure, group, comparison, p_value, len(found))
        for (pair, comparison), p_value in zip(found, corrected, strict=True)
    ]


def _targets(variant: Variant, measure: Measure, group: str | None) -> pl.DataFrame | None:
    """A variant's targets that the measure is about; None where there are none, or it was not measured on them."""
    targets = variant.targets(measure.protocol)
    if group is not None:
        targets = targets.filter(pl.col("group") == group)
    return None if len(targets) == 0 or metric_values(targets, measure.metric) is None else targets


def sentences(tests: Sequence[PairedTest]) -> list[str]:
    """What may be said: a sentence for every difference that may be claimed, one for all others of a family together.

    Args:
        tests: in any order.

    Returns:
        Markdown list items, in groups by family, measure and user group.
    """
    groups: dict[tuple[str, str, str | None], list[PairedTest]] = {}
    for test in tests:
        groups.setdefault((test.pair.family, test.measure.label, test.group), []).append(test)
    lines = []
    for (family, label, group), members in groups.items():
        users = "" if group is None else f", {group} users"
        counted = "one test" if len(members) == 1 else f"{len(members)} tests, corrected together"
        lines.append(f"- **{label}{users}** ({family}; {counted})")
        for test in members:
            if test.is_claimed:
                lines.append(f"  - {sentence_of(test.pair.ours, test.pair.theirs, test.comparison, test.corrected)}")
        undecided = [test for test in members if not test.is_claimed]
        if undecided:
            listed = "; ".join(_in_brackets(test) for test in undecided)
            lines.append(f"  - No difference can be claimed between {listed}.")
    return lines


def _in_brackets(test: PairedTest) -> str:
    comparison = test.comparison
    interval = f"{comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}]"
    p_values = f"p = {comparison.p_value:.4f}, corrected {test.corrected:.4f}"
    return f"{test.pair.ours} and {test.pair.theirs} ({interval}, {p_values})"
