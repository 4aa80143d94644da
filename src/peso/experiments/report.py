"""One self-contained HTML file per workspace: figures, comparisons, configuration, and example users."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from peso.data.storage import load_dataset
from peso.experiments import plots
from peso.experiments.choices import choices_of
from peso.experiments.comparisons import Claim, make_claims
from peso.experiments.examples import example_users
from peso.experiments.results import RunRecord, Variant, group_variants, load_results
from peso.files import write_text
from peso.semantic_ids.catalogue import load_semantic_ids

REPORT = "report.html"
_LIST_LENGTH = 10
_COLUMNS = ("hit@5", "hit@10", "ndcg@5", "ndcg@10", "mrr@10", "log_likelihood")


@dataclass(frozen=True)
class Figure:
    """A picture in the page.

    Attributes:
        svg: the drawing.
        caption: what one sees.
    """

    svg: Markup
    caption: str


def write_report(workspace: Path) -> Path:
    """Writes `report.html` from every finished run and rival.

    Args:
        workspace: with at least one finished run.

    Returns:
        The file.

    Raises:
        WorkspaceError: there is no finished run, or a result is damaged.
    """
    records = load_results(workspace)
    dataset = load_dataset(workspace / "data")
    semantic_ids = load_semantic_ids(workspace / "data" / "semantic_ids", dataset.item_ids)
    models = [record for record in records if record.result["seed"] is not None]
    sections = [_section(name, records) for name in sorted({model.result["lists"] for model in models})]
    shown = _shown_run(models)
    environment = Environment(
        loader=PackageLoader("peso.experiments"), autoescape=select_autoescape(["jinja"]), undefined=StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        dataset=dataset,
        records=models,
        choices=choices_of(models),
        sections=sections,
        columns=_COLUMNS,
        shown=shown.result,
        users=example_users(shown, dataset, semantic_ids, _LIST_LENGTH),
        configuration=lambda record: tomli_w.dumps(record.result["config"]),
    )
    write_text(workspace / REPORT, page)
    return workspace / REPORT


def _section(lists: str, records: list[RunRecord]) -> dict[str, Any]:
    """Everything about the runs whose lists follow the same rules, so that they can be compared."""
    variants = group_variants([record for record in records if record.result["lists"] == lists])
    updated = [variant for variant in variants if not variant.is_rival]
    claims = make_claims(variants)
    return {
        "lists": lists,
        "variants": variants,
        "claims": claims,
        "summary": _summary(updated, claims),
        "figures": _figures(variants, updated),
    }


def _summary(updated: list[Variant], claims: list[Claim]) -> str:
    if all(variant.mean("ndcg@10") is None for variant in updated):
        return "No later block has a user with three events, so there are no test targets to rank methods by."
    best = max(updated, key=lambda variant: variant.mean("ndcg@10") or 0.0)
    num_seeds = len(best.runs)
    seeds = f"{num_seeds} seeds" if num_seeds > 1 else "one seed, so intervals speak of that seed alone"
    against = [claim.sentence for claim in claims if claim.ours == best.name and claim.protocol == "in_block"]
    return " ".join([f"Highest mean NDCG@10 of the models: {best.name} ({seeds}).", *against])


def _figures(variants: list[Variant], updated: list[Variant]) -> dict[str, list[Figure]]:
    def figure(svg: str | None, caption: str) -> list[Figure]:
        return [] if svg is None else [Figure(Markup(svg), caption)]

    ranks = "95 % intervals from resampling users (and, with several seeds, the spread between them)."
    return {
        "blocks": figure(
            plots.metric_per_block(variants, "ndcg@10", "in_block", "NDCG@10, each block's own test targets"),
            f"Each model after training on block t, on the test targets of block t. {ranks}",
        )
        + figure(
            plots.metric_per_block(variants, "hit@10", "in_block", "Hit@10, each block's own test targets"),
            "Share of targets among the ten recommended items.",
        )
        + figure(
            plots.metric_per_block(variants, "ndcg@10", "next_block", "NDCG@10, every interaction of the next block"),
            "The model after block t on everything that happens in block t + 1, as in a deployment.",
        )
        + figure(
            plots.metric_per_block(updated, "log_likelihood", "next_block", "Log-likelihood, the next block"),
            "Mean log-probability of the item that was taken; higher is better. It tells apart what ranks cannot.",
        ),
        "groups": figure(
            plots.metric_by_group(updated, "ndcg@10"),
            "Plasticity shows in new users and new items, stability in users who return after a gap (dormant).",
        ),
        "adapter": figure(
            plots.gradient_ratio(updated),
            "How strongly the anchor pulls, relative to the loss. A ratio near zero means the term does nothing.",
        )
        + figure(plots.movement(updated), "Distance each part of the adapter travelled in each update, first seed."),
        "training": figure(
            plots.loss_curves(updated),
            "Solid: validation; dotted: training. The dot marks the epoch that was kept. First seed.",
        ),
    }


def _shown_run(models: list[RunRecord]) -> RunRecord:
    """The run whose recommendations are shown: PESO if there is one, the lowest seed."""
    return min(models, key=lambda r: (r.result["method"] != "peso", r.result["method"] == "frozen", r.result["seed"]))
