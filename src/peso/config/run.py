"""All of a run's configuration, and the parts of it that name bases and adapters."""

from typing import Any

from pydantic import Field

from peso.config.method_sections import (
    CumulativeConfig,
    EwcConfig,
    FullConfig,
    OLoraConfig,
    OrthogonalConfig,
    OutputKlConfig,
    ProximalConfig,
    ReplayConfig,
)
from peso.config.section import Section
from peso.config.sections import (
    AdapterConfig,
    AlignmentConfig,
    BackboneConfig,
    DecodingConfig,
    EvaluationConfig,
    MemoryConfig,
    TrainingConfig,
)
from peso.types import MethodName, TemplateName

SECTION_OF_METHOD: dict[MethodName, str] = {
    "peso": "proximal",
    "sum_lora": "cumulative",
    "sd_lora": "cumulative",
    "o_lora": "o_lora",
    "orthogonal": "orthogonal",
    "ewc": "ewc",
    "output_kl": "output_kl",
    "replay": "replay",
    "full": "full",
}
"""The section that only some methods read."""


def unread_sections(method: MethodName) -> set[str]:
    """Those that only other methods read."""
    return set(SECTION_OF_METHOD.values()) - {SECTION_OF_METHOD.get(method, "")}


class RunConfig(Section):
    """Everything that decides the outcome of one run on a given data set."""

    method: MethodName = "peso"
    """Continual method."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and dropout, for base and updates alike."""
    template: TemplateName = "sid"
    """How a history is written."""
    max_history: int = Field(20, ge=1)
    """Longest history in items (paper: 20)."""
    backbone: BackboneConfig = BackboneConfig()
    adapter: AdapterConfig = AdapterConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    training: TrainingConfig = TrainingConfig()
    proximal: ProximalConfig = ProximalConfig()
    cumulative: CumulativeConfig = CumulativeConfig()
    o_lora: OLoraConfig = OLoraConfig()
    orthogonal: OrthogonalConfig = OrthogonalConfig()
    ewc: EwcConfig = EwcConfig()
    output_kl: OutputKlConfig = OutputKlConfig()
    replay: ReplayConfig = ReplayConfig()
    full: FullConfig = FullConfig()
    decoding: DecodingConfig = DecodingConfig()
    memory: MemoryConfig = MemoryConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def backbone_part(self) -> dict[str, Any]:
        """The part that decides a backbone trained on block 0: bases that agree on it share its weights."""
        own = ("base_epochs", "base_learning_rate", "base_weight_decay")
        part = self.base_part()
        training = {key: value for key, value in part["training"].items() if key not in own}
        part = {key: value for key, value in part.items() if key not in ("adapter", "alignment")}
        return part | {"training": training}

    def base_part(self) -> dict[str, Any]:
        """The part that decides the base and v_0: runs that agree on it share one base checkpoint."""
        training = self.training.model_dump(mode="json")
        later_only = {
            "epochs", "learning_rate", "token_rows_learning_rate", "rate_factors", "weight_decay", "batch_targets",
        }  # fmt: skip
        return {
            "seed": self.seed,
            "template": self.template,
            "max_history": self.max_history,
            "backbone": self.backbone.model_dump(mode="json"),
            "adapter": self.adapter.model_dump(mode="json"),
            "alignment": self.alignment.model_dump(mode="json"),
            "training": {key: value for key, value in training.items() if key not in later_only},
        }

    def update_part(self) -> dict[str, Any]:
        """The part that decides what is carried on: runs that agree on it differ in what they measure or recommend."""
        part = self.base_part() | {"method": self.method, "training": self.training.model_dump(mode="json")}
        section = SECTION_OF_METHOD.get(self.method)
        # A lead only moves what recommends, after training.
        return part | ({section: getattr(self, section).model_dump(mode="json", exclude={"lead"})} if section else {})

    def run_part(self) -> dict[str, Any]:
        """The part that decides the outcome of a run: all but the sections that other methods read."""
        return self.model_dump(mode="json", exclude=unread_sections(self.method))
