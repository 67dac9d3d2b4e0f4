"""The configuration of any run: one that this package trains, or one of a user's script."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Tag

from gan_ablate.design.config import RunConfig
from gan_ablate.design.external import ExternalConfig


def _kind_of(data: Any) -> str:
    is_external = "command" in data if isinstance(data, dict) else isinstance(data, ExternalConfig)
    return "external" if is_external else "trained"


AnyConfig: TypeAlias = Annotated[
    Annotated[RunConfig, Tag("trained")] | Annotated[ExternalConfig, Tag("external")], Discriminator(_kind_of)
]
