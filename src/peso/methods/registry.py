"""Every method by name: a new one is a file, a line here, and a name in `peso.types.MethodName`."""

from collections.abc import Callable

from peso.config import RunConfig
from peso.methods.base import ContinualMethod
from peso.methods.cumulative import Cumulative
from peso.methods.ewc import Ewc
from peso.methods.frozen import Frozen
from peso.methods.full import Full
from peso.methods.inf_lora import InfLora
from peso.methods.lsat import Lsat
from peso.methods.o_lora import OLora
from peso.methods.orthogonal import Orthogonal
from peso.methods.output_kl import OutputKl
from peso.methods.peso import Peso
from peso.methods.replay import Replay
from peso.methods.retrain import Retrain
from peso.methods.single import Single
from peso.types import MethodName

METHODS: dict[MethodName, Callable[[RunConfig], ContinualMethod]] = {
    "frozen": lambda config: Frozen(),
    "single": lambda config: Single(),
    "peso": lambda config: Peso(config.proximal),
    "sum_lora": lambda config: Cumulative(config.cumulative, learns_magnitudes=False),
    "sd_lora": lambda config: Cumulative(config.cumulative, learns_magnitudes=True),
    "inf_lora": lambda config: InfLora(),
    "lsat": lambda config: Lsat(),
    "o_lora": lambda config: OLora(config.o_lora),
    "orthogonal": lambda config: Orthogonal(config.orthogonal),
    "ewc": lambda config: Ewc(config.ewc),
    "output_kl": lambda config: OutputKl(config.output_kl, config.adapter.lora_alpha / config.adapter.r),
    "replay": lambda config: Replay(config.replay),
    "retrain": lambda config: Retrain(),
    "full": lambda config: Full(config.full),
}


def build_method(config: RunConfig) -> ContinualMethod:
    """The method that a configuration names."""
    return METHODS[config.method](config)
