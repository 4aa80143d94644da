"""Files, folders, numbers and records that cannot be what they are given as: one sentence each, and nothing written."""

import json
from pathlib import Path

import pytest

from commands import assert_one_sentence, output_of, peso
from peso.config import make_config
from peso.training.materials import load_materials

CONFIGS = {
    "infinite": "[training]\nweight_decay = inf",
    "no-number": "[proximal]\nstrength = nan\n[replay]\nshare = nan",
    "no-modules": "[adapter]\ntarget_modules = []",
    "negative": "[memory]\nlag_weights = [1.0, -0.5]\ndistance_weights = [-1.0]",
    "endless": "[memory]\nlag_weights = [inf]",
    "zeros": "[memory]\nlag_weights = [0.0, 0.0]\ndistance_weights = []",
    "twice": "[training]\nrate_factors = [0.5, 0.5]",
    "good": "",
    "other-seed": "seed = 7",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`file`, a small `world` with two damaged bases, releases of too little, and configurations."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "file").touch()
    (folder / "log.csv").write_text("who,what\nann,1\nann,2\n")
    for name, text in CONFIGS.items():
        (folder / f"{name}.toml").write_text(text)
    world = folder / "world"
    output_of("simulate", "-w", world, "--users", "20", "--items", "150", "--blocks", "2")
    for name, record in (("good", "{}"), ("other-seed", "[]")):
        base = world / "bases" / load_materials(world, make_config(folder / f"{name}.toml")).base_id
        base.mkdir(parents=True)
        (base / "base.json").write_text(record)
    release = folder / "release"
    release.mkdir()
    (release / "x.block_0.json").write_text(json.dumps({"a": {"previous_block": [], "current_block": ["1", "2"]}}))
    (release / "x.index.json").write_text(json.dumps({"1": ["<a_0>"], "2": ["<a_1>"]}))
    tables = folder / "tables"
    tables.mkdir()
    (tables / "S.item.json").write_text(json.dumps({"0": {"title": "T"}}))
    (tables / "S.index.json").write_text(json.dumps({"0": ["<a_0>"]}))
    for period in ("valid", "test"):
        (tables / f"S.{period}.csv").write_text("user_id,history_item_id,item_id\n")
    return folder


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("run -w world --config world", ("world cannot be read", "directory", "--config")),
        ("run -w world --config file/x", ("file/x cannot be read", "--config")),
        ("simulate -w file", ("--workspace file: file is a file; name a folder",)),
        ("simulate --workspace file/below", ("--workspace file/below: file is a file",)),
        ("import peso-release release -w file", ("--workspace file",)),
        ("import table log.csv --user who --item what -w file", ("--workspace file",)),
        ("scale import table log.csv --user who --item what -w file", ("--workspace file",)),
        ("download movielens ml-1m --folder file", ("--folder file",)),
        ("export -w world --output file", ("--output file",)),
        ("items refresh -w world --into file", ("--into file",)),
        ("download movielens ml-1m --mirror foo", ("--mirror 'foo' is no web address", "https://files.grouplens")),
        ("download amazon-2023 Toys --mirror http://[", ("--mirror 'http://[' is no web address",)),
        ("download amazon-2023 Toys --mirror ftp://host", ("--mirror 'ftp://host'",)),
        ("run -w world --strength inf", ("proximal.strength: ", "finite number", "(got 'inf')")),
        ("run -w world --lead 1.5", ("proximal.lead: ", "less than or equal to 1", "(got 1.5)")),
        ("run -w world --lead nan", ("proximal.lead: ",)),
        ("run -w world --strength nan", ("proximal.strength: ", "finite number")),
        ("run -w world --share 2", ("proximal.share: ", "less than or equal to 1", "'auto'", "(got '2')")),
        ("run -w world --config infinite.toml", ("training.weight_decay: ", "finite number (got inf)")),
        ("run -w world --config no-number.toml", ("proximal.strength: ", "; replay.share: ", "(got nan)")),
        ("plan -w world --gpu-memory inf", ("--gpu-memory inf: give a finite number",)),
        ("plan -w world --teraflops inf", ("--teraflops inf",)),
        ("items refresh -w world --into new --share nan", ("--share nan",)),
        ("import table log.csv --user who --item what --min-rating=-inf -w new", ("--min-rating -inf: give",)),
        ("run -w world --config no-modules.toml", ("adapter.target_modules: ", "at least 1 item")),
        (
            "run -w world --config negative.toml",
            ("memory.lag_weights.1: ", "memory.distance_weights.0: ", "(got -0.5)"),
        ),
        ("run -w world --config endless.toml", ("memory.lag_weights.0: ", "finite number")),
        ("run -w world --config twice.toml", ("training.rate_factors", "each factor is tried once")),
        (
            "run -w world --config zeros.toml",
            ("memory.lag_weights: one weight", "memory.distance_weights: one weight", "memory.use = false"),
        ),
        ("import minionerec tables -w new", ("tables: no table holds a row",)),
        ("import peso-release release -w new", ("release holds block 0 alone", "add *.block_1.json")),
        ("run -w world --config good.toml", ("base checkpoint: ", "base.json has no valid 'seconds'", "restore it")),
        ("run -w world --config other-seed.toml", ("base checkpoint: ", "base.json has no valid 'seconds'")),
    ],
)
def test_wrong_input(place: Path, monkeypatch: pytest.MonkeyPatch, words: str, named: tuple[str, ...]) -> None:
    monkeypatch.chdir(place)
    before = _written(place)
    assert_one_sentence(peso(*words.split()), *named)
    assert _written(place) == before


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words", ["plan -w world --gpu-memory", "import table log.csv --user who --item what -w new --base-share"]
)
def test_no_range_holds_what_is_no_number(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: str, number: str
) -> None:
    """The range's own usage error or ours: either names the option, and nothing is written."""
    monkeypatch.chdir(place)
    before = _written(place)
    done = peso(*f"{words}={number}".split())
    assert (done.returncode, done.stdout) == (2, "")
    assert words.split()[-1] in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert _written(place) == before


def _written(place: Path) -> set[Path]:
    return {*place.iterdir(), *(place / "world" / "data").rglob("*"), *(place / "world").rglob("*.safetensors")}
