"""One message on its way to the centre, in one part or several; what its parts were answered, as one receipt."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from channels.adapter import Written
from channels.answers import LONGEST_WORD, Verdict
from channels.smpp.ids import Ids, normal
from channels.smpp.pdu import PduError
from channels.smpp.session import Answer, Flight
from channels.smpp.status import verdict
from channels.smpp.submit import bodies
from dispatcher.message import Message
from dispatcher.receipt import Receipt

#: Of parts that were answered differently the first of these counts: a message that lacks a part for good is not
#: there, and one that lacks it for now may be sent again, for its parts then fit those that arrived.
_ORDER: Final = ("rejected", "invalid_recipient", "auth", "throttled", "transient", "unknown", "accepted")


class Tag(NamedTuple):
    """What a part belongs to."""

    message: str
    to: str
    last: bool


class Trip:
    """`bodies` are to be submitted in order; `flights` those that were."""

    __slots__ = ("bodies", "flights", "message", "refused")

    def __init__(self, message: Message, source_addr: str) -> None:
        self.message = message
        self.flights: list[Flight[Tag]] = []
        self.bodies: Sequence[bytes] = ()
        self.refused = ""
        try:
            self.bodies = bodies(message, source_addr)
        except PduError as error:
            self.refused = str(error)

    def next_tag(self) -> Tag:
        """Of the part that is submitted next."""
        return Tag(self.message.id, self.message.to, len(self.flights) == len(self.bodies) - 1)

    def receipt(self, provider: str, ids: Ids, why_unwritten: str, why_silent: str) -> Receipt:
        """What became of it, its parts' ids remembered where a report may name them."""
        if self.refused:
            return Receipt(self.message.id, "rejected", provider, code=self.refused[:LONGEST_WORD])
        answers = [_answer_of(flight) for flight in self.flights]
        verdicts = [_verdict_of(answer, why_silent) for answer in answers]
        if len(self.flights) < len(self.bodies):
            verdicts.append(Verdict("transient", f"not_written: {why_unwritten}"))
        worst = min(verdicts, key=lambda one: _ORDER.index(one.answer))
        taken = [answer.message_id if isinstance(answer, Answer) and answer.status == 0 else "" for answer in answers]
        if worst.answer in ("accepted", "unknown"):
            self._remember(ids, taken)
        if worst.answer == "accepted":
            ref = taken[-1]
            find = normal(ref) if ref else None
            return Receipt(
                self.message.id, "accepted", provider, ref[:LONGEST_WORD] or None, find=find, segments=len(answers)
            )
        code = (worst.code or "")[:LONGEST_WORD]
        count = sum(isinstance(answer, Answer) and answer.status == 0 for answer in answers)
        if count:
            code = f"{count} of {len(self.bodies)} parts accepted; {code}"[:LONGEST_WORD]
        return Receipt(self.message.id, worst.answer, provider, None, code, worst.retry_after_s)

    def _remember(self, ids: Ids, taken: list[str]) -> None:
        whole = len(self.bodies) == 1
        for flight, id_ in zip(self.flights, taken, strict=True):
            if id_ and not (whole and ids.form is not None):  # the store finds it
                ids.remember(id_, *flight.tag)


def _answer_of(flight: Flight[Tag]) -> Answer | Written | None:
    """None: there is none yet."""
    if not flight.future.done() or flight.future.cancelled():
        return None
    error = flight.future.exception()
    return error if isinstance(error, Written) else flight.future.result()


def _verdict_of(answer: Answer | Written | None, why_silent: str) -> Verdict:
    if answer is None:
        return Verdict("unknown", f"no_reply: {why_silent}")
    return Verdict("unknown", f"no_reply: {answer}") if isinstance(answer, Written) else verdict(answer.status)
