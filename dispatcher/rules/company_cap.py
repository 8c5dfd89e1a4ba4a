"""`company_cap`: all lines together do not flood a user."""

from typing import ClassVar

from dispatcher.rules.scope import Capped, Family


class CompanyCap(Capped, frozen=True, kw_only=True, tag="company_cap", forbid_unknown_fields=True):
    """At most `limit` sends of all lines reach a user on a channel in a window."""

    family: ClassVar[Family] = "intercept"
    default_per: ClassVar[str | None] = "day"

    limit: int = 30
