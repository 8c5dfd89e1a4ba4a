"""`company_cap`: all lines together do not flood a user."""

from typing import ClassVar

from dispatcher.rules.scope import Capped, Family, Limit


class CompanyCap(Capped, frozen=True, kw_only=True, tag="company_cap", forbid_unknown_fields=True):
    """At most `limit` sends of all lines reach a user on a channel in a window."""

    family: ClassVar[Family] = "intercept"
    examples: ClassVar = ({"limit": 2}, {"limit": 3, "window_s": 30}, {"limit": 0})
    default_per: ClassVar[str | None] = "day"

    limit: Limit = 30
