"""A workspace's items get codes: unique, from what block 0 knew, and never under a model."""

from pathlib import Path

import numpy as np
import pytest

from catalogues import shop_contents, shop_dataset
from peso.data.dataset import Dataset
from peso.data.storage import save_dataset
from peso.errors import ConfigError, DataError, WorkspaceError
from peso.files import read_json
from peso.semantic_ids.catalogue import SemanticIds, load_semantic_ids
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.item_tokenizer import load_item_tokenizer

LEVEL_SIZES = (4, 4, 8)


def new_workspace(folder: Path) -> Path:
    save_dataset(shop_dataset(), folder / "data")
    return folder


def encode(workspace: Path, encoder: str = "tfidf", quantizer: str = "rq-kmeans", seed: int = 0) -> SemanticIds:
    encode_workspace(workspace, EncodingRequest(encoder, quantizer, LEVEL_SIZES, seed))
    return load_semantic_ids(workspace / "data" / "semantic_ids", shop_dataset().item_ids)


@pytest.mark.parametrize(
    ("encoder", "quantizer"),
    [("tfidf", "rq-kmeans"), ("tfidf+collaborative", "rq-kmeans"), ("tfidf", "random"), ("collaborative", "balanced")],
)
def test_every_item_has_a_code_of_its_own(tmp_path: Path, encoder: str, quantizer: str) -> None:
    workspace = new_workspace(tmp_path)
    ids = encode(workspace, encoder, quantizer)
    assert ids.level_sizes == LEVEL_SIZES
    assert len(np.unique(ids.codes, axis=0)) == 60
    record = read_json(workspace / "data" / "semantic_ids" / "encoding.json", "record")
    assert record["num_items_learned_from"] == 45
    assert record["num_items_moved_to_a_free_code"] == ids.num_moved
    if quantizer == "rq-kmeans":
        assert 0 <= record["error_before"] <= record["error_after"]
    else:
        assert record["error_before"] is None


def test_kinds_share_first_codes(tmp_path: Path) -> None:
    def largest_shares(quantizer: str) -> float:
        codes = encode(new_workspace(tmp_path / quantizer), quantizer=quantizer).codes
        return float(np.mean([np.bincount(codes[kind::5, 0]).max() / 12 for kind in range(5)]))

    assert largest_shares("rq-kmeans") > largest_shares("random") + 0.2


def test_codes_of_block_0_depend_on_nothing_later(tmp_path: Path) -> None:
    whole = encode(new_workspace(tmp_path / "whole"))
    data = shop_dataset()
    early = data.event_block == 0
    cut = Dataset(
        data.user_ids, data.item_ids[:45], data.titles[:45],
        data.event_user[early], data.event_item[early], data.event_block[early], 1,
    )  # fmt: skip
    save_dataset(cut, tmp_path / "cut" / "data")
    encode_workspace(tmp_path / "cut", EncodingRequest("tfidf+collaborative", "rq-kmeans", LEVEL_SIZES))
    alone = load_semantic_ids(tmp_path / "cut" / "data" / "semantic_ids", cut.item_ids)
    both = encode(new_workspace(tmp_path / "both"), "tfidf+collaborative")
    assert both.codes[:45].tolist() == alone.codes.tolist()
    assert both.codes.tolist() != whole.codes.tolist()


def test_the_frozen_tokenizer_gives_the_same_codes(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path)
    ids = encode(workspace, "tfidf+collaborative")
    tokenizer = load_item_tokenizer(workspace / "data" / "semantic_ids")
    codes = tokenizer.codebook.encode(tokenizer.encoder.encode(shop_contents()))
    assert codes.tolist() == ids.source_codes.tolist()


def test_seeds(tmp_path: Path) -> None:
    first = encode(new_workspace(tmp_path / "a"))
    assert encode(new_workspace(tmp_path / "b")).fingerprint == first.fingerprint
    assert encode(new_workspace(tmp_path / "c"), seed=1).fingerprint != first.fingerprint


def test_codes_never_change_under_a_model(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path)
    first = encode(workspace)
    assert encode(workspace, "collaborative").fingerprint != first.fingerprint
    (workspace / "runs").mkdir()
    (workspace / "runs" / ".x.lock").touch()
    second = encode(workspace)
    assert second.fingerprint == first.fingerprint
    adapters = workspace / "runs" / "peso-seed0-1" / "adapters"
    adapters.mkdir(parents=True)
    (workspace / "runs" / "peso-seed0-1" / "config.toml").touch()
    (workspace / "bases" / "unfinished-1").mkdir(parents=True)
    (workspace / "bases" / "1.lock").touch()
    assert encode(workspace).fingerprint == first.fingerprint, "what failed has learned no codes"
    (adapters / "block_0").mkdir()
    (adapters / "block_0" / "adapter_model.safetensors").touch()
    with pytest.raises(WorkspaceError, match="runs holds models that speak in this workspace's present codes"):
        encode(workspace, "collaborative")
    loaded = load_semantic_ids(workspace / "data" / "semantic_ids", shop_dataset().item_ids)
    assert loaded.fingerprint == first.fingerprint


def test_failures_change_nothing(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path)
    first = encode(workspace)
    with pytest.raises(DataError, match="cannot have distinct codes of 16"):
        encode_workspace(workspace, EncodingRequest("tfidf", "rq-kmeans", (4, 4)))
    with pytest.raises(ConfigError, match="no quantizer 'k'"):
        encode_workspace(workspace, EncodingRequest("tfidf", "k", (4, 4)))
    for sizes in ((), (1, 4), (2,) * 17):
        with pytest.raises(ConfigError, match="give 1 to 16 levels of at least 2 codes"):
            encode_workspace(workspace, EncodingRequest("tfidf", "rq-kmeans", sizes))
    loaded = load_semantic_ids(workspace / "data" / "semantic_ids", shop_dataset().item_ids)
    assert loaded.fingerprint == first.fingerprint


def test_imported_codes_have_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="codes that were imported"):
        load_item_tokenizer(tmp_path)


def test_items_without_codes(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path)
    with pytest.raises(WorkspaceError, match="run `peso items encode` first"):
        load_semantic_ids(workspace / "data" / "semantic_ids", shop_dataset().item_ids)
