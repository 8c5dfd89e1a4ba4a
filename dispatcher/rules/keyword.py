"""`keyword`: words that must not be said are not."""

from typing import Annotated, ClassVar

from msgspec import Meta

from dispatcher.message import Message
from dispatcher.rules.scope import Family, Finding, Objection, Rule
from dispatcher.trigger import Id
from dispatcher.user import UserView


class Keyword(Rule, frozen=True, kw_only=True, tag="keyword", forbid_unknown_fields=True):
    """Objects when a rendered field contains a word of the list, however it is disguised (`dispatcher.keywords`)."""

    family: ClassVar[Family] = "intercept"
    examples: ClassVar = ({}, {"list": "gambling"})
    at_admission: ClassVar[bool] = True

    list: Annotated[Id, Meta(description="a list of /v1/keywords")] = "default"

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        words = user.words.get(self.list)
        if words is None or words.empty or words.find(message.fields) is None:
            return None
        return self.measure(message, user, now_ms).numbers

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        words = user.words.get(self.list)
        hit = None if words is None else words.find(message.fields)
        if hit is None:
            return self.find(True, list=self.list)
        return self.find(False, list=self.list, word=hit.word, field=hit.field, position=hit.at)
