"""A study as data: which configurations are run, which are compared, and in which world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from peso.baselines.base import Baseline
from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.data.simulate import SimulationSettings
from peso.errors import ConfigError


class UserSplit(BaseModel):
    """The workspace's own data in blocks that share no user (see `peso.data.user_split`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users_drawn_with_seed: int = 0


class Reencoded(BaseModel):
    """The workspace's own data under another tokenizer's codes; targets stay the same (see `peso items encode`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str
    quantizer: str
    level_sizes: tuple[int, ...] = (256, 256, 256, 256)
    seed: int = 0


World = SimulationSettings | UserSplit | Reencoded
"""Data that a study makes for itself."""


@dataclass(frozen=True)
class Arm:
    """One configuration, run with every seed.

    Attributes:
        name: unique within the study; what tables call it.
        overrides: nested values that win over the study's base configuration.
        world: name of the world it runs in; empty for the workspace's own data.
    """

    name: str
    overrides: dict[str, Any]
    world: str = ""


@dataclass(frozen=True)
class Pair:
    """Two arms (or rivals without a network) that are compared on the same targets: of one world, or of its tokenizers.

    Attributes:
        ours: name of the one.
        theirs: name of the other.
        family: what the comparison belongs to; the p-values of a family are corrected together.
    """

    ours: str
    theirs: str
    family: str


@dataclass(frozen=True)
class Plan:
    """What a study runs and compares.

    Attributes:
        arms: at least one.
        pairs: comparisons that are fixed before any result is seen.
        curves: name of a curve -> arm -> the value that varies along it, ascending.
        rivals: what needs no language model and is measured beside the arms; texts' neighbours join them where items
            were encoded.
        is_next_block_listed: whether lists are made for every event of the next block, too (on the authors' releases
            seven times as many as for the block's own targets); otherwise only the likelihood of those events is read.
        worlds: what the worlds that arms name are made of.
        notes: what a reader must know to read the numbers, a sentence each.
        references: arms that the others are shown against, which may be left out: what is shown of the rest stays the
            same, corrections aside. Empty: no arm may be left out.
    """

    arms: Sequence[Arm]
    pairs: Sequence[Pair] = ()
    curves: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rivals: Sequence[type[Baseline]] = ()
    is_next_block_listed: bool = False
    worlds: Mapping[str, World] = field(default_factory=dict)
    notes: Sequence[str] = ()
    references: Sequence[str] = ()

    def without(self, names: Sequence[str]) -> "Plan":
        """The plan with fewer arms and their comparisons, which says so in a note.

        Args:
            names: of arms, of rivals, or of worlds for all arms in them.

        Raises:
            ConfigError: the study needs all of its arms, a name is of none, or of what the rest is shown against, or
                none stays.
        """
        if not names:
            return self
        known = [*self.worlds, *(arm.name for arm in self.arms), *(rival.name for rival in self.rivals)]
        for name in names:
            if not self.references:
                raise ConfigError(f"--without {name}: this study needs all of its configurations.")
            if name not in known:
                raise ConfigError(f"--without {name}: there is none of this name; there are {'; '.join(known)}.")
        arms = [arm for arm in self.arms if arm.name not in names and arm.world not in names]
        if not arms:
            raise ConfigError("--without: no configuration is left.")
        left = {arm.name: arm.world for arm in self.arms if arm not in arms}
        for reference in self.references:
            if reference in left and any(arm.world == left[reference] for arm in arms):
                raise ConfigError(f"--without {reference}: the others are compared with it, so it must stay.")
        return replace(
            self,
            arms=arms,
            rivals=[rival for rival in self.rivals if rival.name not in names],
            pairs=[pair for pair in self.pairs if not {pair.ours, pair.theirs} & {*left, *names}],
            curves={
                curve: {name: knob for name, knob in names.items() if name not in left}
                for curve, names in self.curves.items()
                if not names.keys() <= left.keys()
            },
            worlds={name: world for name, world in self.worlds.items() if name not in names},
            notes=[*self.notes, f"Left out: {', '.join(dict.fromkeys(names))}."],
        )


Planner = Callable[[RunConfig, Dataset], Plan]
"""From the base configuration (defaults and the user's file) and the workspace's data to what is to be run."""
