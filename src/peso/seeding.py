"""Seeds that depend on what is being done, not on what was done before: a resumed run draws the same numbers."""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as ("order", block, epoch).

    Args:
        seed: the run's seed.
        purpose: what the random numbers are for; different purposes give independent streams.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
