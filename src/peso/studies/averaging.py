"""Is carrying on a mean better than an anchor, what do both together gain, and how far ahead may be what recommends?"""

from typing import Any

from peso.config import DEFAULT_STRENGTHS, RunConfig
from peso.data.dataset import Dataset
from peso.experiments.markdown import Cell
from peso.studies.claims import run_tests
from peso.studies.curves import scaled_rates
from peso.studies.findings import Findings, Study, Table, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS, DISTANCE, SECONDS, VALID_LOSS, spread, spread_text
from peso.studies.methods_compared import OURS, REFERENCE, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome
from peso.training.base import BASE_BLOCK
from peso.types import ProximalForm

FORM: ProximalForm = "decoupled"
FIXED_SHARE = 0.8
RATE_FACTOR = 0.5
ANCHOR, AVERAGING, ALL_WEIGHTS = "anchor", "averaging", "full"
UP_TO_DATE, NO_PULL = "all of the lead", "no pull"


def plan_averaging(config: RunConfig, dataset: Dataset) -> Plan:
    """A pull alone, averaging alone, both, and each way of training without and with averaging."""
    strength = config.proximal.strength if config.proximal.form == FORM else DEFAULT_STRENGTHS[FORM]
    anchor = {"form": FORM, "strength": strength, "share": 1.0, "lead": 0.0}

    def held(name: str, **proximal: Any) -> Arm:
        return Arm(name, method_arm(OURS, proximal=anchor | proximal).overrides)

    arms = [
        method_arm(REFERENCE),
        Arm(
            f"{REFERENCE}, rate x{RATE_FACTOR:g}",
            method_arm(REFERENCE, training=scaled_rates(config, RATE_FACTOR)).overrides,
        ),
        held(ANCHOR),
        held(f"{AVERAGING}, share {FIXED_SHARE:g}", strength=0.0, share=FIXED_SHARE),
        held(AVERAGING, strength=0.0, share="auto"),
        held(f"{ANCHOR} + {AVERAGING}", share="auto"),
        held(OURS, share="auto", lead=config.proximal.lead),
        held(f"{OURS}, {UP_TO_DATE}", share="auto", lead=1.0),
        held(f"{OURS}, {NO_PULL}", strength=0.0, share="auto", lead=config.proximal.lead),
        method_arm(ALL_WEIGHTS, full={"share": 1.0}),
        Arm(f"{ALL_WEIGHTS} + {AVERAGING}", method_arm(ALL_WEIGHTS, full={"share": "auto"}).overrides),
    ]
    names = [arm.name for arm in arms]
    pairs = [Pair(name, REFERENCE, f"against {REFERENCE}") for name in names if name != REFERENCE]
    pairs += [Pair(OURS, name, f"{OURS} against the others") for name in names if name not in (OURS, REFERENCE)]
    pairs.append(Pair(AVERAGING, ANCHOR, f"{AVERAGING} against the {ANCHOR}"))
    notes = [
        f"{ANCHOR}: the pull between steps, versions go all the way to where training ends. {AVERAGING}: no pull, a "
        f"version goes a share of the way, chosen per block by the validation loss or {FIXED_SHARE:g}.",
        f"{OURS}: both, and what recommends goes {config.proximal.lead:g} of the rest of the way beyond what the next "
        f"block starts from; {UP_TO_DATE}: it goes all of it; {NO_PULL}: at strength 0.",
        "A share is chosen on validation targets of the block that is trained on, from a grid of eight.",
    ]
    return Plan(arms, pairs, is_next_block_listed=True, notes=notes, references=[REFERENCE])


def present(outcome: Outcome) -> Findings:
    """The numbers, the shares that were chosen, and the tests."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, BOTH_PROTOCOLS)
    shares = {arm.name: _shares(outcome, arm.name) for arm in outcome.plan.arms}
    blocks = list(shares[REFERENCE])
    rows: list[list[Cell]] = [
        [name, *(spread_text(*spread(by_block[block])) for block in blocks)] for name, by_block in shares.items()
    ]
    title = "Share of the way that was carried on to the next block, mean ± standard deviation over seeds"
    against = [test for test in tests if test.pair.theirs == REFERENCE]
    return Findings(
        [
            arm_table(outcome, BOTH_PROTOCOLS, (VALID_LOSS, DISTANCE, SECONDS)),
            Table(title, ["", *(f"block {block}" for block in blocks)], rows),
        ],
        tests,
        forest_of(against, lambda test: test.pair.ours),
        f"Difference to {REFERENCE}; filled where it may be claimed after correction.",
        {"shares": shares},
    )


def _shares(outcome: Outcome, name: str) -> dict[int, list[float]]:
    """Of the kept epoch of every later block, one per seed."""
    shares: dict[int, list[float]] = {}
    for run in outcome.variants[name].runs:
        for epoch in run.result["training"]:
            if epoch["block"] > BASE_BLOCK and epoch["selected"]:
                # Versions of before there was a choice went all the way.
                shares.setdefault(epoch["block"], []).append(float(epoch.get("share", 1.0)))
    return shares


AVERAGING_STUDY = Study(
    "averaging", "Is carrying on a mean better than an anchor, are both together, and may what recommends be ahead?",
    plan_averaging, present,
)  # fmt: skip
