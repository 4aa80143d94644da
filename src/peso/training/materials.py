"""What every stage of a run needs: facts, semantic IDs, configuration, and the vocabulary tied to a backbone."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.config import RunConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.item_times import load_item_times
from peso.data.list_rules import ListRules
from peso.data.storage import load_dataset
from peso.errors import ConfigError
from peso.files import hash_of_json
from peso.lm.likelihood import CodeLikelihood
from peso.lm.new_tokens import TitledItems
from peso.lm.sequences import SequenceBuilder
from peso.lm.templates import build_template
from peso.lm.vocabulary import build_vocabulary
from peso.memory.neighbours import Neighbours
from peso.memory.order import share_to_shuffle
from peso.semantic_ids.added_items import AddedItems
from peso.semantic_ids.catalogue import SemanticIds, load_semantic_ids
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.item_vectors import read_item_vectors
from peso.semantic_ids.similar_items import similar_items


@dataclass(frozen=True, eq=False)
class Materials:
    """The inputs of a run.

    Attributes:
        dataset: the events.
        semantic_ids: each item's unique codes.
        config: everything that decides the outcome.
        workspace: where the items' vectors are found; None for data that lie nowhere.
    """

    dataset: Dataset
    semantic_ids: SemanticIds
    config: RunConfig
    workspace: Path | None = None

    @cached_property
    def data_fingerprint(self) -> str:
        """Changes when an event, an id, a title or a code does."""
        return hash_of_json([self.dataset.fingerprint, self.semantic_ids.fingerprint])

    @cached_property
    def list_rules(self) -> ListRules:
        """What recommended lists may name."""
        return ListRules.choose(self.dataset, self.config.decoding.catalogue, self.config.decoding.repeats)

    @cached_property
    def item_vectors(self) -> Vectors | None:
        """float32 [N, D], those that the codes were made from; None where the codes were imported.

        Raises:
            WorkspaceError: the encoder, or the table of texts, is damaged.
            ConfigError: the encoder's model is gone or has changed.
        """
        return None if self.workspace is None else read_item_vectors(self.workspace, self.dataset)

    @cached_property
    def similar_items(self) -> Neighbours | None:
        """For the memory; None where items have no vectors, or a memory has no use for them."""
        return self.similar_items_with(None)

    def similar_items_with(self, added: AddedItems | None) -> Neighbours | None:
        """The same with items that stand behind the catalogue, numbered on from it.

        Args:
            added: None for none.
        """
        if self.config.memory.content_weight == 0 or self.item_vectors is None:
            return None
        vectors, codes = self.item_vectors, self.semantic_ids.codes
        if added is not None and len(added.ids):
            vectors, codes = np.concatenate([vectors, added.vectors]), np.concatenate([codes, added.codes])
        return similar_items(vectors, codes)

    @cached_property
    def shuffled_share(self) -> float:
        """Which share of the users training shuffles; see `TrainingConfig.shuffled_share`."""
        share = self.config.training.shuffled_share
        return share_to_shuffle(self.dataset) if share == "auto" else share

    @cached_property
    def item_times(self) -> IntArray:
        """When each item was first taken, microseconds since 1970, int64 [N].

        Raises:
            WorkspaceError: there are none, or they are damaged.
            DataError: they are of other items.
        """
        assert self.workspace is not None, "data that lie nowhere have no times"
        return load_item_times(self.workspace / "data", self.dataset.item_ids)

    @cached_property
    def known_titles(self) -> TitledItems:
        """Titles of the items that occur in block 0, the others' left empty."""
        is_known = self.dataset.item_first_block == 0
        titles = [title if known else "" for title, known in zip(self.dataset.titles, is_known, strict=True)]
        return TitledItems(titles, self.semantic_ids.codes)

    @cached_property
    def backbone_id(self) -> str:
        """Names the backbone after block 0: equal for bases that differ only in the adapter on it."""
        return hash_of_json([self.data_fingerprint, self.config.backbone_part()])[:16]

    @cached_property
    def base_id(self) -> str:
        """Names the base checkpoint: equal configuration and data, equal name (16 hexadecimal digits)."""
        return hash_of_json([self.data_fingerprint, self.config.base_part()])[:16]

    @cached_property
    def update_id(self) -> str:
        """Names the sequence of what is carried on: equal for runs that differ in what they measure or recommend."""
        return hash_of_json([self.data_fingerprint, self.config.update_part()])[:16]

    @cached_property
    def run_id(self) -> str:
        """Names the run, such as `peso-seed0-1a2b3c4d`."""
        digest = hash_of_json([self.data_fingerprint, self.config.run_part()])[:8]
        return f"{self.config.method}-seed{self.config.seed}-{digest}"


def load_materials(workspace: Path, config: RunConfig) -> Materials:
    """Reads a workspace's data.

    Raises:
        WorkspaceError: there is none, it is damaged, or it lacks what the configuration asks for.
        DataError: the times that it asks for are of other items.
    """
    dataset = load_dataset(workspace / "data")
    semantic_ids = load_semantic_ids(workspace / "data" / "semantic_ids", dataset.item_ids)
    materials = Materials(dataset, semantic_ids, config, workspace)
    if config.decoding.new_since is not None:
        _ = materials.item_times  # what is wrong with them is said before anything is trained
    return materials


@dataclass(frozen=True, eq=False)
class Reader:
    """How one backbone reads and scores items.

    Attributes:
        model: the plain backbone; an attached adapter is injected into this very object.
        builder: writes histories and targets as tokens.
        likelihood: scores targets.
    """

    model: PreTrainedModel
    builder: SequenceBuilder
    likelihood: CodeLikelihood


def build_reader(materials: Materials, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Reader:
    """Ties a backbone to the workspace's items.

    Raises:
        ConfigError: the tokenizer lacks a token that the configuration needs.
    """
    codes, config = materials.semantic_ids.codes, materials.config
    vocabulary = build_vocabulary(tokenizer, codes, materials.semantic_ids.level_sizes)
    template = build_template(config.template, tokenizer)
    if config.training.end_token and vocabulary.end_token_id is None:
        raise ConfigError("training.end_token: the backbone's tokenizer has no end token; leave the option out.")
    builder = SequenceBuilder(materials.dataset, codes, vocabulary, template)
    return Reader(model, builder, CodeLikelihood(vocabulary, config.training.normaliser))
