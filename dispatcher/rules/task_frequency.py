"""`task_frequency`: one campaign reaches one user once, whatever way it comes."""

from typing import Annotated, ClassVar

from msgspec import Meta

from dispatcher.message import Message
from dispatcher.rules.scope import Family, Finding, Objection, Rule, rolling, span_ms
from dispatcher.user import Kind, UserView, task_hash


class TaskFrequency(Rule, frozen=True, kw_only=True, tag="task_frequency", forbid_unknown_fields=True):
    """At most `limit` triggers of one task reach a user, on whatever channel, in any `window_s` seconds."""

    family: ClassVar[Family] = "filter"
    examples: ClassVar = ({}, {"limit": 2, "window_s": 30.5})
    of_tasks: ClassVar[bool] = True

    limit: Annotated[int, Meta(ge=0, description="most triggers of one task in the window; 0 lets none pass")] = 1
    window_s: Annotated[float, Meta(gt=0, description="seconds; 30 days")] = 2_592_000.0

    def counts(self, sent: Kind, message: Kind) -> bool:
        return self.sees(sent)

    def horizon_ms(self) -> int:
        return span_ms(self.window_s)

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        if message.task is None or (self.limit > 0 and not user.holds(task_hash(message.task))):
            return None
        return super().decide(message, user, now_ms)

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        if message.task is None:
            return self.find(True)
        times = user.task_times(self, message, now_ms - span_ms(self.window_s) + 1)
        return rolling(self, times, self.limit, self.window_s)
