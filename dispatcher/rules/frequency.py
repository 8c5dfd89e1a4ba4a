"""`frequency`: at most so much marketing on a channel."""

from typing import ClassVar

from dispatcher.documents import TypeName
from dispatcher.rules.scope import MARKETING, Capped, Family


class Frequency(Capped, frozen=True, kw_only=True, tag="frequency", forbid_unknown_fields=True):
    """At most `limit` sends of `types` reach a user on a channel in any window."""

    family: ClassVar[Family] = "filter"
    examples: ClassVar = ({"limit": 2, "window_s": 60.5}, {"limit": 1, "per": "day"}, {"limit": 3, "per": "hour"})

    types: tuple[TypeName, ...] = MARKETING
