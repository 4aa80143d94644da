"""Paired tests as a picture."""

from collections.abc import Callable, Sequence

from peso.experiments.forest import Difference, forest
from peso.studies.claims import PairedTest


def forest_of(
    tests: Sequence[PairedTest],
    label: Callable[[PairedTest], str],
    panel: Callable[[PairedTest], str] = lambda test: test.measure.label,
) -> str:
    """A panel per measure (or whatever `panel` names), a line per label.

    Args:
        tests: what to show.
        label: the line of a test.
        panel: the title of its panel.
    """
    panels: dict[str, list[Difference]] = {}
    for test in tests:
        found = test.comparison
        line = Difference(label(test), found.difference, found.low, found.high, test.is_claimed)
        panels.setdefault(panel(test), []).append(line)
    return forest(list(panels.items()))
