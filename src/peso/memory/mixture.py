"""Counts and a model's probabilities as one distribution; see `peso.decoding.memory` for the formula.

Shapes: T targets, M levels.
"""

import numpy as np

from peso.memory.neighbours import FloatArray


def mixed_log_probabilities(
    of_prefix: FloatArray, of_code: FloatArray, by_model: FloatArray, strength: FloatArray | float, power: float
) -> FloatArray:
    """Of every code of some targets.

    Args:
        of_prefix: float64 [T, M], c of the prefix before each code.
        of_code: float64 [T, M], c of the prefix with the code.
        by_model: float64 [T, M], the model's log-probability of each code in nats.
        strength: kappa_m, one for all levels or float64 [M].
        power: rho in [0, 1].

    Returns:
        float64 [T, M], in nats.
    """
    prefix_by_model = np.cumsum(by_model, axis=1) - by_model
    weight = strength * np.exp(power * prefix_by_model)
    return np.asarray(np.log((of_code + weight * np.exp(by_model)) / (of_prefix + weight)))
