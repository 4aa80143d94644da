"""What no option can be wrong about alone: choices that do not go together."""

from peso.config.run import RunConfig
from peso.errors import ConfigError


def check_together(config: RunConfig) -> None:
    """Refuses them.

    Raises:
        ConfigError: two choices exclude each other; the sentence names both.
    """
    _check_backbone(config)
    _check_quantisation(config)
    _check_sharding(config)
    _check_end_token(config)
    _check_proximal(config)
    _check_decoding(config)


def _check_backbone(config: RunConfig) -> None:
    backbone = config.backbone
    if backbone.hidden_size % (2 * backbone.num_heads):
        raise ConfigError(
            f"backbone.hidden_size {backbone.hidden_size} must be a multiple of 2 x backbone.num_heads "
            f"({backbone.num_heads}): rotary positions turn pairs of a head's features."
        )
    if backbone.source == "embedded" and backbone.new_token_rows != "mean":
        raise ConfigError(
            f'backbone.new_token_rows "{backbone.new_token_rows}" needs a backbone that knows words; give one by '
            "backbone.source, the embedded one learns its rows from scratch."
        )
    if backbone.source == "embedded" and config.adapter.start != "fresh":
        raise ConfigError(
            f"adapter.start {config.adapter.start!r} needs the backbone that the adapter was trained on; name it by "
            "backbone.source, the embedded one is trained anew."
        )
    if backbone.source == "embedded" and config.alignment.epochs:
        raise ConfigError(
            f"alignment.epochs {config.alignment.epochs} needs a backbone that knows words; give one by "
            "backbone.source, or set it to 0."
        )


def _check_quantisation(config: RunConfig) -> None:
    backbone = config.backbone
    if backbone.quantisation != "none" and (backbone.source == "embedded" or config.method == "full"):
        raise ConfigError(
            f'backbone.quantisation "{backbone.quantisation}" stores a language model that is loaded and stays frozen; '
            'with the embedded backbone, or the method "full", leave it at "none".'
        )
    if backbone.quantisation != "none" and config.training.sharding != "none":
        raise ConfigError(
            f'backbone.quantisation "{backbone.quantisation}" and training.sharding "{config.training.sharding}" do '
            'not go together: weights in four bits are not cut into shards; set one of the two to "none".'
        )


def _check_sharding(config: RunConfig) -> None:
    if config.training.sharding != "none" and config.backbone.source == "embedded":
        raise ConfigError(
            f'training.sharding "{config.training.sharding}" shares out a language model that is loaded; name one by '
            "backbone.source, the embedded backbone is small and trains itself."
        )
    if config.training.sharding != "none" and config.method == "full":
        raise ConfigError(
            f'training.sharding "{config.training.sharding}" shares out what is frozen, and the method "full" trains '
            'all weights; leave it at "none".'
        )


def _check_end_token(config: RunConfig) -> None:
    if config.training.end_token and (config.template != "instruct" or config.training.normaliser != "vocabulary"):
        raise ConfigError(
            f'training.end_token needs template "instruct" and training.normaliser "vocabulary" (got '
            f'"{config.template}" and "{config.training.normaliser}"): an end follows an answer only where no next '
            "item does, and it is no code of a level."
        )


def _check_proximal(config: RunConfig) -> None:
    proximal = config.proximal
    if proximal.metric != "softmax" and proximal.form != "decoupled":
        raise ConfigError(
            f'proximal.metric "{proximal.metric}" needs proximal.form "decoupled" (got "{proximal.form}"): the other '
            "forms are terms with a metric of their own."
        )
    if proximal.held != "all" and proximal.form != "decoupled":
        raise ConfigError(
            f'proximal.held "{proximal.held}" needs proximal.form "decoupled" (got "{proximal.form}"): the other forms '
            "are terms of A and B."
        )


def _check_decoding(config: RunConfig) -> None:
    decoding = config.decoding
    if decoding.new_item_share and decoding.normaliser == "trie":
        raise ConfigError(
            f'decoding.new_item_share {decoding.new_item_share:g} needs decoding.normaliser "level" or "vocabulary": '
            'under "trie" scores among the new items are not those among all.'
        )
    if decoding.new_since is not None and not decoding.new_item_share:
        raise ConfigError(
            f"decoding.new_since {decoding.new_since:%Y-%m-%d} says which items are new, and decoding.new_item_share 0 "
            "keeps nothing for them; give a share, or leave the date out."
        )
    if decoding.beam_width < decoding.num_recommendations:
        raise ConfigError(
            f"decoding.beam_width {decoding.beam_width} is below decoding.num_recommendations "
            f"{decoding.num_recommendations}; a beam per recommended item is the least."
        )
