"""Names for the choices that appear in configurations, one string under each choice's alias.

Kept apart from `config` so that low rooms can name a choice without importing the whole configuration.
"""

from typing import Literal

TemplateName = Literal["sid", "instruct"]
"""How a history is written: bare semantic-ID tokens, or a sentence around them."""

TrainedRows = Literal["codes", "all"]
"""Which rows of embedding and head train with the adapter: the semantic-ID tokens', or both whole matrices."""

NewTokenRows = Literal["mean", "title"]
"""What the rows of tokens new to a loaded backbone start from: the mean of all rows, or the words of item titles."""

Normaliser = Literal["level", "vocabulary"]
"""Over what a code's softmax runs in training: the codes of its level, or every token the model knows."""

DecodingNormaliser = Literal["level", "vocabulary", "trie"]
"""Over what a code's softmax runs in decoding; "trie" are the codes that lead on to an item that may be named."""

Precision = Literal["float32", "bfloat16"]
"""The numbers that a training pass computes in, or that a version is stored in."""

Quantisation = Literal["none", "nf4"]
"""How the frozen backbone's linear layers are stored: as loaded, or in four bits."""

Kernels = Literal["auto", "stock"]
"""Whether fused kernels of other libraries are used where they are installed and serve the model."""

Sharding = Literal["none", "fsdp"]
"""What each of several processes keeps of the frozen backbone: all of it, or a shard."""

CatalogueName = Literal["known", "all"]
"""What decoding may name: items that occur in any block so far, or the whole index (as the authors' release)."""

RepeatsName = Literal["auto", "allowed", "excluded"]
"""Whether a list may name what its user already took; "auto" excludes it if nobody took an item twice in block 0."""

PenaltyForm = Literal["paper", "official", "normalised", "l2"]
"""A proximal term that is added to the loss; see `peso.methods.proximal`."""

ProximalForm = Literal["decoupled", "paper", "official", "normalised", "per_rank", "l2"]
"""How the adapter is anchored: a pull after the optimizer's step (`peso.methods.pull`), or a term in the loss."""

HeldParts = Literal["all", "adapter", "token_rows"]
"""What the decoupled pull holds: A and B, the rows of the semantic-ID tokens, or both."""

MetricName = Literal["softmax", "identity", "fisher", "past_fisher", "kronecker", "counts"]
"""What the decoupled pull measures distance from the anchor by; see `peso.methods.anchor_metrics`."""

MethodName = Literal[
    "frozen",
    "single",
    "peso",
    "sum_lora",
    "sd_lora",
    "inf_lora",
    "o_lora",
    "lsat",
    "orthogonal",
    "ewc",
    "output_kl",
    "replay",
    "retrain",
    "full",
]
"""A continual method that `peso.methods.registry` knows."""

PastName = Literal["all", "latest"]
"""Which past adapters stay under the current one: those of every block, or of the one before."""

StartName = Literal["inherit", "fresh"]
"""What a block's adapter starts from: the one before, or nothing."""

NextBlockDetail = Literal["ranks", "log_likelihood", "off"]
"""What the next-block protocol measures."""

StudyName = Literal[
    "table1",
    "table2",
    "table3",
    "fig2",
    "metrics",
    "fig3",
    "fig4",
    "anchor",
    "averaging",
    "order",
    "matrix",
    "capacity",
    "gap",
    "drift",
    "directions",
    "memory",
    "tokenizers",
    "classical",
]
"""A study that `peso.studies.registry` knows."""

PublicLog = Literal["amazon-2018", "amazon-2023", "movielens"]
"""A log that `peso download` knows the address of."""

EncoderName = Literal["tfidf", "sentences", "language-model", "precomputed", "collaborative"]
"""What turns an item into a vector; see `peso.semantic_ids.encoders.registry`."""

QuantizerName = Literal["rq-kmeans", "rq-vae", "rq-vae-straight-through", "product", "fsq", "random", "balanced"]
"""What turns vectors into codes; see `peso.semantic_ids.quantizers.registry`."""

GradientName = Literal["straight_through", "rotation"]
"""How a quantized latent passes its gradient back; see `peso.semantic_ids.quantizers.gradients`."""

ExportFormat = Literal["peft", "merged", "vllm"]
"""Layouts that `peso export` writes."""
