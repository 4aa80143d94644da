"""Every method by name: a new one is a file, a line here, and a name in `peso.types.MethodName`."""

from collections.abc import Callable

from peso.config import RunConfig
from peso.methods.base import ContinualMethod
from peso.methods.frozen import Frozen
from peso.methods.peso import Peso
from peso.methods.single import Single
from peso.types import MethodName

METHODS: dict[MethodName, Callable[[RunConfig], ContinualMethod]] = {
    "frozen": lambda config: Frozen(),
    "single": lambda config: Single(),
    "peso": lambda config: Peso(config.proximal),
}


def build_method(config: RunConfig) -> ContinualMethod:
    """The method that a configuration names."""
    return METHODS[config.method](config)
