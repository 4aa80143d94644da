"""Is a language model that is kept up to date better than the classical recommenders, and with a memory?"""

from peso.baselines.run import BASELINES
from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.rivals.registry import classical_rivals
from peso.studies.claims import run_tests
from peso.studies.findings import ALL_MEASURES, Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import NDCG, NEXT_NDCG, SECONDS
from peso.studies.methods_compared import OURS, REFERENCE, WITH_MEMORY, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome


def plan_classical(config: RunConfig, dataset: Dataset) -> Plan:
    """PESO without and with its memory, one evolving LoRA, and every rival that needs no language model.

    Raises:
        InstallationError: the library of two of the rivals is not installed.
    """
    arms = [method_arm(REFERENCE), method_arm(OURS), Arm(WITH_MEMORY, {"method": OURS, "memory": {"use": True}})]
    rivals = (*BASELINES, *classical_rivals())
    pairs = [Pair(ours, rival.name, f"{ours} against rivals") for ours in (OURS, WITH_MEMORY) for rival in rivals]
    notes = [
        "Rivals are trained once, not with every seed. bpr, sasrec and sasrec_retrained draw numbers from a fixed seed "
        "of their own: another would give other lists, which no interval here knows of.",
        "sasrec is trained further on each block from where the one before ended, sasrec_retrained on all data so far.",
        "Settings of SASRec were found once, on validation targets of Video Games; learning rates of language models "
        "are as configured, by default chosen anew for each block.",
    ]
    return Plan(arms, pairs, rivals=rivals, is_next_block_listed=True, notes=notes, references=[OURS])


def present(outcome: Outcome) -> Findings:
    """The table of every measure, and what sets PESO apart from each rival."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, ALL_MEASURES)
    shown = [test for test in tests if test.measure in (NDCG, NEXT_NDCG)]
    return Findings(
        [arm_table(outcome, ALL_MEASURES, (SECONDS,))],
        tests,
        forest_of(shown, lambda test: f"{test.pair.ours}\n- {test.pair.theirs}"),
        "PESO's difference to each rival; filled where it may be claimed after correction.",
    )


CLASSICAL_STUDY = Study(
    "classical", "Is a model that is kept up to date better than recommenders without one?", plan_classical, present
)
