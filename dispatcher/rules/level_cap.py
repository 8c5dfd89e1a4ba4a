"""`level_cap`: what is only nice to know comes in small doses."""

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from dispatcher.documents import Level, TypeName
from dispatcher.rules.scope import Capped, Family
from dispatcher.user import Kind

NOTICES: Final[tuple[TypeName, ...]] = ("notice", "notice_marketing")


class LevelCap(Capped, frozen=True, kw_only=True, tag="level_cap", forbid_unknown_fields=True):
    """At most `limit` sends of `types` and of `min_level` or less important reach a user on a channel in a window."""

    family: ClassVar[Family] = "filter"
    examples: ClassVar = (
        {"types": ["marketing"], "limit": 2, "window_s": 86_400},
        {"types": [], "min_level": 5, "limit": 3, "per": "day"},
    )

    min_level: Annotated[Level, Meta(description="the most important level that is capped")] = 4
    types: tuple[TypeName, ...] = NOTICES

    def sees(self, kind: Kind) -> bool:
        # A more important message neither counts nor is held back: money that moved is not news too many.
        return kind.level >= self.min_level and super().sees(kind)
