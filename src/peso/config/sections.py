"""The tables that every run reads: every number that decides a result, with its meaning under it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from peso.config.instants import Instant
from peso.config.section import Section
from peso.types import (
    CatalogueName,
    DecodingNormaliser,
    Kernels,
    NewTokenRows,
    NextBlockDetail,
    Normaliser,
    Precision,
    Quantisation,
    RepeatsName,
    Sharding,
    TrainedRows,
)


class BackboneConfig(Section):
    """The language model under the adapter."""

    UNNAMED: ClassVar[tuple[str, ...]] = ("quantisation",)

    source: str = "embedded"
    """"embedded" (a small Llama trained from scratch on block 0), or a folder or hub name of a causal LM."""
    new_token_rows: NewTokenRows = "mean"
    """What the rows of semantic-ID tokens new to a loaded backbone start from: "mean", the mean of the rows it has;
    "title", for each code the mean over the words of the titles of block 0's items with that code."""
    quantisation: Quantisation = "none"
    """How a loaded backbone's linear layers are stored: "none", as they come; "nf4", in four bits by bitsandbytes
    (extra `gpu`, CUDA only)."""
    hidden_size: int = Field(128, ge=8)
    """Width of the embedded backbone."""
    num_layers: int = Field(3, ge=1)
    """Decoder layers of the embedded backbone."""
    num_heads: int = Field(4, ge=1)
    """Attention heads of the embedded backbone; must divide hidden_size."""
    intermediate_size: int = Field(256, ge=8)
    """Width of the embedded backbone's feed-forward layers."""
    epochs: int = Field(20, ge=1)
    """Passes over block 0 when training from scratch; the pass with the best validation loss is kept."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate when training from scratch."""
    weight_decay: float = Field(0.7, ge=0)
    """AdamW weight decay when training from scratch; strong, because block 0 is small for a language model."""


class AdapterConfig(Section):
    """The one evolving LoRA adapter."""

    UNNAMED: ClassVar[tuple[str, ...]] = ("stored_precision",)

    r: int = Field(64, ge=1)
    """LoRA rank (paper: 8, on a language model; at the embedded backbone's width most of the distance to training all
    weights is rank, and an anchor gains the more, the higher it is: `peso study gap`)."""
    lora_alpha: int = Field(128, ge=1)
    """LoRA scale numerator; the update is (lora_alpha / r) B A (paper: 16)."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input (paper: 0.05)."""
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Linear layers that carry the adapter (paper: all seven of a Llama layer); "all-linear" alone names every linear
    layer of the decoder stack, whatever the model calls them."""

    token_rows: TrainedRows = "codes"
    """Which rows of embedding and head train along: "codes", those of the semantic-ID tokens; "all", both whole
    matrices, as in the released code (a tied pair is trained as two; 2.1 GB per version at 1B parameters)."""

    stored_precision: Precision = "float32"
    """What a version's file holds: "bfloat16" halves it. Training goes on from the stored numbers, in float32, and they
    are what is measured and served."""

    start: str = "fresh"
    """What v_0 starts from: "fresh" (A random, B zero), or the name of an adapter that `peso import-adapter` put into
    the workspace. It then trains on block 0 for training.base_epochs; 0 takes it as it is."""


class AlignmentConfig(Section):
    """An optional stage of the base on a language model: titles of block 0's items to semantic IDs, and back."""

    epochs: int = Field(0, ge=0)
    """Passes over the texts, two per item with a title, before the adapter trains on block 0; 0 leaves it out."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak learning rate of the adapter and the rows."""
    batch_texts: int = Field(32, ge=1)
    """Texts per optimizer step."""


class TrainingConfig(Section):
    """How an adapter is trained on a block."""

    UNNAMED: ClassVar[tuple[str, ...]] = ("sharding", "kernels")

    base_epochs: int = Field(1, ge=0)
    """Passes of the adapter over block 0 (the state v_0 that every later block starts from)."""
    base_learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of the adapter on block 0."""
    base_weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay (decoupled) of the adapter on block 0."""
    epochs: int = Field(6, ge=1)
    """Passes over each later block; the pass with the best validation loss is kept."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of A and B on later blocks."""
    token_rows_learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of the semantic-ID tokens' rows on later blocks."""
    rate_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.25, 0.0625, 0.125, 0.5, 1.0, 2.0), min_length=1)
    """What the learning rates of later blocks may be multiplied by. Whole trainings are compared by validation loss: of
    the first factor and of its neighbours, and from a better one on (see `peso.training.search`). A block without
    validation targets takes the first. (1.0,) takes the rates as they are."""
    weight_decay: float = Field(0.3, ge=0)
    """AdamW weight decay (decoupled) on later blocks."""
    warmup_fraction: float = Field(0.01, ge=0, lt=1)
    """Share of the steps with a linearly rising rate; a cosine falls to zero after it."""
    base_batch_targets: int = Field(256, ge=1)
    """Targets per optimizer step on block 0."""
    batch_targets: int = Field(64, ge=1)
    """Targets per optimizer step on later blocks, which are small: a hundred steps do more than twenty long ones."""
    targets_per_row: int = Field(20, ge=1)
    """Consecutive targets of one user that share a forward pass, at most; each sees its last max_history items, and
    later ones of a row up to targets_per_row - 1 more. 1 is the plain way: one example per target."""
    shuffled_share: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """Share of the users whose training targets of a block each pass shows in another order, drawn anew each time (see
    `peso.data.shuffling`); 0 reads all as they happened, as validation, measurements and lists always do. "auto" asks
    counts how little order says in block 0 (see `peso.memory.order`)."""
    line_tokens: int = Field(0, ge=0)
    """Users share a line of up to this many tokens (without seeing each other); 0 gives each user a line of its own,
    which is faster on a CPU."""
    passes_per_step: int = Field(1, ge=1)
    """Forward and backward passes that share one optimizer step: less memory, the same gradient."""
    precision: Precision = "float32"
    """What training computes in; "bfloat16" needs hardware for it and keeps weights and losses in float32."""
    gradient_checkpointing: bool = False
    """Computes each layer again on the way back instead of keeping its states: less memory, a third more time."""
    sharding: Sharding = "none"
    """What each of several processes keeps of a frozen language model: "none", all of it; "fsdp", its share of every
    layer, gathered while the layer computes (see `peso.lm.sharding`)."""
    kernels: Kernels = "auto"
    """Kernels on a CUDA device: "auto", those of liger-kernel and flash-attn where they are installed and serve the
    model (see `peso.lm.kernels`); "stock", none of them."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Cross-entropy gradients longer than this are scaled down to it."""
    normaliser: Normaliser = "level"
    """Over what each code's softmax runs in the loss."""
    temperature: float = Field(1.0, gt=0)
    """What the training loss divides logits by (paper: 0.8); losses that are reported or chosen by use 1."""
    end_token: bool = False
    """Whether an answer ends with the end token, which is then part of the training loss, as in the released code;
    needs the template "instruct" and the normaliser "vocabulary"."""

    @field_validator("rate_factors")
    @classmethod
    def _differ(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each factor is tried once; leave out the repeated ones")
        return value


class DecodingConfig(Section):
    """How recommendations are read out of the model."""

    UNNAMED: ClassVar[tuple[str, ...]] = ("new_item_share", "new_since")

    num_recommendations: int = Field(10, ge=1)
    """Length of the recommended list."""
    beam_width: int = Field(50, ge=1)
    """Beams kept per user while decoding; at least num_recommendations."""
    catalogue: CatalogueName = "known"
    """Which items may be named."""
    repeats: RepeatsName = "auto"
    """Whether lists may name what the user already took; the released code allows it."""
    normaliser: DecodingNormaliser = "level"
    """Over what each code's softmax runs: "level", the codes of its level; "vocabulary", every token, as a stock beam
    search does; "trie", the codes that lead to an item in the catalogue. "level" is what the default loss trains, and
    a score then does not change when other items leave the catalogue; with "trie" it does, and a prefix with few
    children gets an easy next step, with "vocabulary" mass leaks to tokens that can never stand there."""
    batch_tokens: int = Field(4096, ge=1)
    """Tokens that go through the model together while decoding, at most: users are batched by the longer of their
    history and their beams, one user at least."""
    new_item_share: float = Field(0, ge=0, le=1)
    """Share of beams and of places in every list that is kept for items which no event before the latest block names
    (see `peso.decoding.reserved`); 0 leaves all to the scores."""
    new_since: Instant | None = None
    """New are items first taken then or later, such as 2024-03-09, instead of those of the latest block."""


class MemoryConfig(Section):
    """What stood near what, and what is alike, mixed into the model's probabilities while decoding (all of it ours)."""

    use: bool = True
    """Whether lists and log-likelihoods are those of model and memory together; the paper's are the model's alone."""
    lag_weights: tuple[Annotated[float, Field(ge=0)], ...] | Literal["auto"] = "auto"
    """How much the neighbours of a history's last item count, of the one before it, and so on. "auto" reaches ten
    items back and chooses by which ratio weights fall, by how likely counts alone make the block's validation targets
    (see `peso.memory.choice`); by 0.8 where they do not tell."""
    distance_weights: tuple[Annotated[float, Field(ge=0)], ...] | Literal["auto"] = "auto"
    """How much items that stand next to each other in a user's sequence count, with one item between, and so on; every
    further place costs two pairs per event. "auto", in the same way, over ten places; 0.85 where they do not."""
    backward: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """How much a neighbour that came before counts, relative to one that came after. "auto", in the same way; 0.75
    where they do not tell."""
    decay: float = Field(0.9, gt=0, le=1)
    """Weight of a pair for each block that has passed since."""
    discount: float = Field(0.4, ge=0, le=1)
    """How much less the neighbours of items count that many took: those of one that was taken n times weigh n to the
    power of minus this. 0 counts pairs; 1 asks each item of a history for shares, whatever they rest on."""
    content_weight: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """How much an item of the very content of a history's last item counts, as if it had so often stood behind it; it
    falls with the eighth power of the cosine. "auto" chooses it with the strengths; without effect where peso did not
    encode the items."""
    strength: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """What the model weighs at every level, in counts: with as many weighted counts both have the same say. "auto"
    chooses it per level and block, by the likelihood of the block's validation targets."""
    prefix_power: float = Field(0.3, ge=0, le=1)
    """How much the model's weight goes with the probability that it gives a prefix, as a power of it. 0: it weighs the
    same behind every prefix, and items next to remembered ones profit most; 1: nothing goes to them."""

    @model_serializer(mode="wrap")
    def _without_unnamed(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Of a memory that is not used nothing else is written, so that it decides no run's name.
        return super()._without_unnamed(handler) if self.use else {"use": False}

    @field_validator("lag_weights", "distance_weights")
    @classmethod
    def _remembers(cls, value: tuple[float, ...] | str) -> tuple[float, ...] | str:
        if value != "auto" and not any(value):
            raise ValueError("one weight at least must be above 0; memory.use = false turns the memory off")
        return value


class EvaluationConfig(Section):
    """What is measured besides the paper's protocol."""

    next_block: NextBlockDetail = "ranks"
    """What to measure of every interaction of block t + 1 with the model after block t: "ranks" (all metrics),
    "log_likelihood" (about 20 times cheaper), or "off"."""
