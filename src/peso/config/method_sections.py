"""The tables that only some methods read, with the meaning of every number under it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from peso.config.section import Section
from peso.types import HeldParts, MetricName, PastName, ProximalForm, StartName

DEFAULT_STRENGTHS: dict[ProximalForm, float] = {
    "decoupled": 3.0,
    "paper": 2.0,
    "official": 2.0,
    "normalised": 0.01,
    "per_rank": 0.01,
    "l2": 0.01,
}
"""Of each form; those of "paper" and "official" are the paper's."""


Share = Annotated[float, Field(gt=0, le=1)] | Literal["auto"]


class ProximalConfig(Section):
    """What anchors the adapter to its previous state in PESO (Eq. 12); ignored by other methods."""

    UNNAMED: ClassVar[tuple[str, ...]] = ("metric", "held")

    form: ProximalForm = "decoupled"
    """A pull between steps ("decoupled"), or a term in the loss; see `peso.methods.pull` and `.proximal`."""
    strength: Annotated[float, Field(ge=0)] | Literal["auto"] | None = Field(None, validate_default=True)
    """The factor lambda; 0 equals the method "single" bit for bit. Left out, it is the form's own default; "auto"
    chooses it per block by the loss of the block's validation targets (see `peso.training.search`)."""
    share: Share | None = Field(None, validate_default=True)
    """How much of the way from where a block starts to where its training ends is carried on to the next block: one
    more proximal step, on all that was trained at once (see `peso.training.averaging`). 1 is all of it, as in the
    paper; "auto" chooses it per block by the loss of the block's validation targets. Left out, it is "auto" for
    "decoupled" at a strength above 0, and 1 otherwise."""
    lead: float = Field(0.3, ge=0, le=1)
    """How much of the rest of the way the version that recommends goes beyond the one that the next block starts from:
    likelihood is best near that one, and lists have higher means further on. 0 makes both one; at a share of 1 they
    are."""
    metric: MetricName = "softmax"
    """What "decoupled" measures distance by: "softmax", the paper's, of A, B and token rows; "identity"; "fisher", the
    mean squared gradients of the block's training targets; "past_fisher", of the previous block's; "kronecker", second
    moments of inputs and output gradients for A and B, and for token rows as "fisher"; "counts", for token rows how
    rarely the block shows a code, and for A and B as "softmax". All have mean 1: a strength means the same (see
    `peso.methods.anchor_metrics`)."""
    held: HeldParts = "all"
    """What "decoupled" holds: A and B ("adapter"), the semantic-ID tokens' rows, or both. A share of the way and a term
    in the loss are not concerned: the one is of all that trains, the other of A and B."""

    @field_validator("strength")
    @classmethod
    def _default_of_form(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        return DEFAULT_STRENGTHS[info.data["form"]] if value is None and "form" in info.data else value

    @field_validator("share")
    @classmethod
    def _default_share(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        if value is not None:
            return value
        return "auto" if info.data.get("form") == "decoupled" and info.data.get("strength") != 0 else 1.0


class CumulativeConfig(Section):
    """What SumLoRA and SD-LoRA keep of the past (methods "sum_lora" and "sd_lora"); ignored by others."""

    past: PastName = "all"
    """Which past adapters act."""
    start: StartName = "inherit"
    """What the current adapter starts from."""


class OLoraConfig(Section):
    """How far the method "o_lora" keeps a new adapter out of the rows of earlier ones; ignored by others."""

    strength: float = Field(0.5, ge=0)
    """Factor of the overlap (Wang and others, 2023: 0.5)."""


class OrthogonalConfig(Section):
    """How far the method "orthogonal" pushes the adapter away from its past; ignored by others."""

    strength: float = Field(0.1, ge=0)
    """Factor of the overlap."""


class EwcConfig(Section):
    """How stiff the method "ewc" makes what the previous block depended on; ignored by others."""

    strength: float = Field(0.01, ge=0)
    """Factor of the penalty; that of an L2 term of equal total weight."""


class OutputKlConfig(Section):
    """How far the method "output_kl" holds what the adapter adds to each layer; ignored by others."""

    strength: float = Field(0.1, ge=0)
    """Factor of the divergence; 0 equals the method "single" bit for bit."""


class ReplayConfig(Section):
    """How much of the past the method "replay" shows again; ignored by others."""

    share: float = Field(1.0, gt=0)
    """Past training targets per training target of the block."""


class FullConfig(Section):
    """How the method "full" trains a whole backbone; ignored by others."""

    UNNAMED: ClassVar[tuple[str, ...]] = ("share",)

    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of all weights on later blocks."""
    share: Share = 1.0
    """As `proximal.share`, of all weights."""
