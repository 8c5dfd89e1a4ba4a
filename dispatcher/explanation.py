"""What a dry run tells of one trigger: for each channel tried what every rule found, and which providers could send."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from dispatcher.message import Message, vendor_of
from dispatcher.rules import Finding


class RuleFinding(Struct):
    """One rule's finding. `count` excludes this message; what has no meaning for a kind is null.

    `window_s`: the window's length in seconds. `resets_at`: when one more would pass, or, where it passes now, when the
    count falls. `position`: characters into `field` as rendered.
    """

    name: str
    kind: str
    family: str
    passed: bool
    count: int | None = None
    limit: int | None = None
    window_s: float | None = None
    resets_at: datetime | None = None
    defer_until: datetime | None = None
    detail: str | None = None
    list: str | None = None
    word: str | None = None
    field: str | None = None
    position: int | None = None


class ProviderChance(Struct):
    """One candidate of the route as a router sees it now: its health `score` in (0, 1], its `share` of such messages,
    and the reason when it is out."""

    id: str
    score: float
    share: float
    reason: str | None = None


#: What a route table can tell messages apart by: channel, type, line, template, region, vendor of a push token.
RouteKey = tuple[str, str, str, str, str | None, str | None]


class ChannelExplanation(Struct):
    """One channel that was tried; without rules when there could be no message."""

    channel: str
    rules: list[RuleFinding] = []
    providers: list[ProviderChance] = []


class Rehearsed(Struct):
    """What the rules found for one draft of a message."""

    message: Message
    findings: Sequence[Finding]

    @property
    def route_key(self) -> RouteKey:
        """What routers need to know of it."""
        m = self.message
        return m.channel, m.type, m.line, m.template, m.region, vendor_of(m)

    def explanation(self, providers: list[ProviderChance]) -> ChannelExplanation:
        """As people read it."""
        return ChannelExplanation(self.message.channel, [_shown(finding) for finding in self.findings], providers)


def _shown(finding: Finding) -> RuleFinding:
    n = finding.numbers
    return RuleFinding(
        n.rule, n.kind, n.family, finding.passed, n.count, n.limit, n.window_s, _moment(n.resets_at_ms),
        _moment(n.defer_until_ms), n.detail, n.list, n.word, n.field, n.position,
    )  # fmt: skip


def _moment(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
