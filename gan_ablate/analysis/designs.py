"""What is compared with what: all that effects are estimated from besides the table of runs, whoever made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.design.grid import DesignKind, Factor
    from gan_ablate.design.planning import Intervals


class Variant(Protocol):
    """One cell of a design."""

    @property
    def label(self) -> str:
        """What the table's column ``cell`` calls it."""

    @property
    def levels(self) -> dict[str, str]:
        """A level for every factor."""


class Design(Protocol):
    """A plan, or what a table of others' runs shows of one."""

    @property
    def factors(self) -> Mapping[str, Factor]:
        """What is varied, with the levels and which of them is the baseline."""

    @property
    def kind(self) -> DesignKind:
        """Whether all factors are crossed, or each level is compared with the one baseline."""

    @property
    def cells(self) -> Sequence[Variant]:
        """The variants, the baseline first."""

    @property
    def seeds(self) -> Sequence[int]:
        """In the order in which they came."""

    @property
    def intervals(self) -> Intervals:
        """Whether the number of seeds was settled beforehand."""

    @property
    def log_margin(self) -> float:
        """The log ratio within ± which an effect is negligible."""
