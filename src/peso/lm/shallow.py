"""A backbone's shape with fewer layers and random weights: to measure what a layer costs before loading a model."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.configuration_utils import PretrainedConfig

from peso.config import BackboneConfig
from peso.errors import ConfigError
from peso.lm.backbone import EMBEDDED, build_backbone, first_line
from peso.lm.vocabulary import add_code_tokens


class ShallowBackbone:
    """Models of one configuration at any depth."""

    def __init__(self, config: BackboneConfig, level_sizes: Sequence[int]) -> None:
        """Reads a backbone's configuration and tokenizer, not its weights.

        Args:
            config: which backbone.
            level_sizes: codes per level, whose tokens get rows.

        Raises:
            ConfigError: `config.source` holds no configuration or no tokenizer.
        """
        self._config, self._level_sizes = config, tuple(level_sizes)
        self._shape: PretrainedConfig | None = None
        if config.source == EMBEDDED:
            self.tokenizer: PreTrainedTokenizerBase = build_backbone(config, level_sizes, 0)[1]
            self.num_layers = config.num_layers
            return
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(config.source)
            self._shape = AutoConfig.from_pretrained(config.source)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"backbone.source {config.source!r} holds no configuration and tokenizer ({first_line(error)}); give a "
                "folder with config.json and the tokenizer's files, or a hub name."
            ) from None
        add_code_tokens(self.tokenizer, level_sizes)
        self.num_layers = self._shape.get_text_config().num_hidden_layers

    def build(self, num_layers: int) -> PreTrainedModel:
        """A model of so many layers with a row for every token, in the backbone's own type."""
        if self._shape is None:
            return build_backbone(self._config.model_copy(update={"num_layers": num_layers}), self._level_sizes, 0)[0]
        shape = deepcopy(self._shape)
        text = shape.get_text_config()
        text.num_hidden_layers = num_layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:num_layers]
        text.vocab_size = max(text.vocab_size, len(self.tokenizer))
        model: PreTrainedModel = AutoModelForCausalLM.from_config(shape, dtype=shape.dtype or torch.float32)
        return model
