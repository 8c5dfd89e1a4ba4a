"""The rules in force, sorted for speed: which of them see a kind of message, and how long a send can matter."""

from collections.abc import Sequence

from dispatcher.rules import Blacklist, Rule
from dispatcher.user import Kind


class Rulebook:
    """An immutable view of one ordered rule list."""

    __slots__ = ("_by_kind", "rules")

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._by_kind: dict[Kind, tuple[Rule, ...]] = {}

    def seeing(self, kind: Kind) -> tuple[Rule, ...]:
        """The rules in whose scope a message of this kind lies, in order."""
        rules = self._by_kind.get(kind)
        if rules is None:
            if len(self._by_kind) > 65_536:  # kinds carry task names, of which there is no end
                self._by_kind.clear()
            rules = self._by_kind[kind] = tuple(rule for rule in self.rules if rule.sees(kind))
        return rules

    def at_admission(self, kind: Kind) -> tuple[Rule, ...]:
        """The rules that a message for later must pass at once: those that do not depend on when it is sent."""
        return tuple(rule for rule in self.seeing(kind) if isinstance(rule, Blacklist))

    def horizon_ms(self, kind: Kind) -> int:
        """How long a send of this kind can matter to any rule."""
        return max((rule.horizon_ms() for rule in self.rules if rule.sees(kind)), default=0)


