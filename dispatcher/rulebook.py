"""The rules in force, sorted for speed: which of them see a kind of message, and how long a send can matter."""

from collections.abc import Sequence

from dispatcher.rules import Rule
from dispatcher.user import Kind


class Rulebook:
    """An immutable view of one ordered rule list."""

    __slots__ = ("_by_kind", "_horizons", "rules")

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._by_kind: dict[Kind, tuple[Rule, ...]] = {}
        self._horizons: dict[Kind, tuple[int, int]] = {}

    def seeing(self, kind: Kind) -> tuple[Rule, ...]:
        """The rules in whose scope a message of this kind lies, in order."""
        rules = self._by_kind.get(kind)
        if rules is None:
            rules = self._by_kind[kind] = tuple(rule for rule in self.rules if rule.sees(kind))
        return rules

    def at_admission(self, kind: Kind) -> tuple[Rule, ...]:
        """The rules that a message for later must pass at once: those that do not depend on when it is sent."""
        return tuple(rule for rule in self.seeing(kind) if rule.at_admission)

    def at_attempts(self, kind: Kind) -> tuple[Rule, ...]:
        """The rules that an admitted message must pass again before each attempt."""
        return tuple(rule for rule in self.seeing(kind) if rule.at_attempts)

    def horizons_ms(self, kind: Kind) -> tuple[int, int]:
        """How long a send of this kind, and its task, can matter to any rule."""
        found = self._horizons.get(kind)
        if found is None:
            rules = self.seeing(kind)
            sends = max((rule.horizon_ms() for rule in rules if not rule.of_tasks), default=0)
            tasks = max((rule.horizon_ms() for rule in rules if rule.of_tasks), default=0)
            found = self._horizons[kind] = sends, tasks
        return found
