"""The catalogue of the simulated world: genres, themes, series of volumes, and popularity that rises and fades."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray

_NUM_GENRES, _THEMES_PER_GENRE = 12, 8
_VOLUMES = (2, 6)
_LEAST_CODES_PER_THEME = 16
_GENRES = (
    "Northern Jazz", "Harbour Folk", "Desert Blues", "Chamber Electric", "Alpine Brass", "River Gospel",
    "Midnight Synth", "Island Ska", "Prairie Swing", "Cathedral Choir", "Garage Punk", "Monsoon Raga",
)  # fmt: skip
_THEMES = ("Sketches", "Nocturnes", "Live Sessions", "Ballads", "Field Recordings", "Suites", "Rarities", "Duets")
_NAMES = (
    "Amber",
    "Birch",
    "Cobalt",
    "Dune",
    "Ember",
    "Fjord",
    "Granite",
    "Heron",
    "Indigo",
    "Juniper",
    "Kestrel",
    "Lumen",
)


@dataclass(frozen=True, eq=False)
class Items:
    """Items in the order of their numbers; the volumes of a series follow each other.

    Attributes:
        genre: int64 [N].
        theme: int64 [N], counted over all genres.
        series: int64 [N].
        codes: int64 [N, 3].
        level_sizes: codes per level.
        first_block: int64 [N], when the item appears.
        appeal: float64 [N], lasting popularity.
        titles: length N.
    """

    genre: IntArray
    theme: IntArray
    series: IntArray
    codes: IntArray
    level_sizes: tuple[int, ...]
    first_block: IntArray
    appeal: NDArray[np.float64]
    titles: list[str]

    @property
    def num_items(self) -> int:
        """Items N."""
        return len(self.genre)

    @property
    def num_genres(self) -> int:
        """Genres: level 1 of the codes."""
        return self.level_sizes[0]

    def popularity(self, block: int) -> NDArray[np.float64]:
        """float64 [N]: appeal, three times as high in the block of release, halving its excess each block after."""
        age = np.maximum(block - self.first_block, 0)
        excess = np.where(self.first_block > 0, 2.0 * 0.5**age, 0.0)
        return self.appeal * (1 + excess)


def make_items(num_items: int, num_blocks: int, later_share: float, random: np.random.Generator) -> Items:
    """Draws a catalogue.

    Args:
        num_items: items N.
        num_blocks: blocks in which items may appear.
        later_share: share of the series that appear after block 0.
        random: source of chance.
    """
    lengths: list[int] = []
    while sum(lengths) < num_items:
        lengths.append(min(int(random.integers(*_VOLUMES)), num_items - sum(lengths)))
    num_series = len(lengths)
    series_theme = random.integers(0, _NUM_GENRES * _THEMES_PER_GENRE, size=num_series)
    is_later = random.random(num_series) < later_share
    is_later[0] = False  # block 0 has something to offer in the smallest of worlds too
    series_block = np.where(is_later, random.integers(1, num_blocks, size=num_series), 0)

    series = np.repeat(np.arange(num_series), lengths)
    volume = np.concatenate([np.arange(length) for length in lengths])
    theme = series_theme[series]
    genre = theme // _THEMES_PER_GENRE
    codes_per_theme = _LEAST_CODES_PER_THEME
    while _NUM_GENRES * _THEMES_PER_GENRE * codes_per_theme < num_items:
        codes_per_theme *= 2
    place = np.empty(num_items, dtype=np.int64)
    for value in np.unique(theme):
        members = np.flatnonzero(theme == value)
        place[members] = np.arange(len(members)) % codes_per_theme
    codes = np.stack([genre, theme % _THEMES_PER_GENRE, place], axis=1)
    titles = [
        f"{_GENRES[genre[item]]} {_THEMES[theme[item] % _THEMES_PER_GENRE]}: "
        f"{_NAMES[series[item] % len(_NAMES)]} {series[item]}, Volume {volume[item] + 1}"
        for item in range(num_items)
    ]
    appeal = random.pareto(2.0, size=num_items) + 0.2
    level_sizes = (_NUM_GENRES, _THEMES_PER_GENRE, codes_per_theme)
    return Items(genre, theme, series, codes, level_sizes, series_block[series], appeal, titles)
