"""In which metric should the default's pull measure, with a share of the way beside it?"""

from typing import get_args

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.studies.averaging import NO_PULL
from peso.studies.claims import run_tests
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS, DISTANCE, RATIO, SECONDS, VALID_LOSS
from peso.studies.methods_compared import OURS, REFERENCE, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome
from peso.types import MetricName


def plan_metrics(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA, and PESO as configured but for its metric: the configured one, every other, and no pull."""
    configured = config.proximal.metric
    others = [metric for metric in get_args(MetricName) if metric != configured]
    # A share that nobody configured goes with the strength, so it is named.
    ours = [method_arm(OURS), _arm(NO_PULL, strength=0.0, share=config.proximal.share)]
    ours += [_arm(metric, metric=metric) for metric in others]
    pairs = [Pair(arm.name, REFERENCE, f"against {REFERENCE}") for arm in ours]
    pairs += [Pair(arm.name, OURS, f"against the metric {configured}") for arm in ours[1:]]
    notes = [
        f"{OURS} measures in the metric {configured}, and every arm of it goes a share of the way, with a lead, as "
        f"configured. {NO_PULL}: at strength 0. The strength is the configured one in every metric, tuned for none."
    ]
    return Plan([method_arm(REFERENCE), *ours], pairs, notes=notes, references=[REFERENCE])


def _arm(change: str, **proximal: object) -> Arm:
    return Arm(f"{OURS}, {change}", method_arm(OURS, proximal=proximal).overrides)


def present(outcome: Outcome) -> Findings:
    """The table, and what sets each metric apart from single evolving LoRA and from the configured metric."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, BOTH_PROTOCOLS)
    to_ours = [test for test in tests if test.pair.theirs == OURS]
    return Findings(
        [arm_table(outcome, BOTH_PROTOCOLS, (VALID_LOSS, DISTANCE, RATIO, SECONDS))],
        tests,
        forest_of(to_ours, lambda test: test.pair.ours),
        f"Difference to {OURS} as configured; filled where it may be claimed after correction.",
    )


METRICS = Study("metrics", "In which metric should the default's pull measure?", plan_metrics, present)
