"""The words that set a group of titles apart from all others."""

import re
from collections import Counter
from collections.abc import Sequence
from math import log

_WORD = re.compile(r"[^\W\d_]{3,}")


class GroupWords:
    """Counts words over a catalogue once, then names groups of it."""

    def __init__(self, titles: Sequence[str]) -> None:
        """Counts in how many titles each word is.

        Args:
            titles: of all items.
        """
        self._words = [set(_WORD.findall(title.lower())) for title in titles]
        self._counts = Counter(word for words in self._words for word in words)

    def name(self, members: Sequence[int], num_words: int) -> list[str]:
        """The words with the largest p log(p / q), p their share in the group and q in the catalogue; best first.

        Args:
            members: numbers of the group's items, at least one.
            num_words: at most this many; only words more frequent in the group than elsewhere.
        """
        inside = Counter(word for item in members for word in self._words[item])

        def surprise(word: str) -> float:
            share = inside[word] / len(members)
            return share * log(share * len(self._words) / self._counts[word])

        ranked = sorted(inside, key=lambda word: (-surprise(word), word))
        return [word for word in ranked[:num_words] if surprise(word) > 0]
