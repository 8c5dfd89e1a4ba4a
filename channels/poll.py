"""What became of messages at a vendor that tells only who asks: when to ask for which, within bounds. Pure.

A reference (what the vendor called one request) is asked for as long as an address of it has no final state, at
`STEPS_S` after it was sent; then it is forgotten. Beyond `most` addresses the oldest references are forgotten first.
Who asks is `actors.polling`, in the sender that sent them.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from channels.adapter import Reply, Request
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, ReportStatus

#: Most phones are reached at once or when they come online; a day is as long as most messages live.
STEPS_S: Final = (15.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0)
#: Of one question, whatever the vendor takes.
MOST_ADDRESSES: Final = 1000
#: Questions of one sender in the air. Each has a connection beside those for messages, so that none waits for it.
AT_ONCE: Final = 2


class State(Struct, frozen=True):
    """What the vendor says of one address; `sent` means that it does not know more yet."""

    status: ReportStatus
    code: str | None = None
    dead: bool = False


@runtime_checkable
class Polled(Protocol):
    """An adapter whose vendor is asked for delivery states. `account` is whose messages it knows; its requests carry no
    token that is fetched."""

    account: str

    def status_request(self, ref: str, addresses: Sequence[str], sent_s: float) -> Request:
        """Asks for the states of these addresses under one reference."""
        ...

    def states(self, addresses: Sequence[str], reply: Reply) -> Mapping[str, State]:
        """The state of each address that the reply knows something of. Never raises."""
        ...


class Question(Struct, frozen=True):
    """One request to make: `addresses` of `ref`, with the messages they got."""

    ref: str
    addresses: dict[str, str]  # address -> message id
    sent_s: float
    step: int

    def __repr__(self) -> str:
        return f"Question({self.ref!r}, {len(self.addresses)} addresses)"


class Poll:
    """What one provider's messages are waited for. Times are epoch seconds."""

    def __init__(self, provider: str, most: int = 100_000) -> None:
        self._provider = provider
        self._most = most
        self._open: OrderedDict[str, Question] = OrderedDict()  # oldest first
        self._due: list[tuple[float, int, str]] = []
        self._number = 0  # keeps the heap from comparing references
        self.waiting = 0  # addresses
        self.forgotten = 0  # addresses, for want of room

    def sent(self, messages: Sequence[Message], receipts: Sequence[Receipt], now_s: float) -> None:
        """Ask for these, as far as they were accepted."""
        groups: dict[str, dict[str, str]] = {}
        for message, receipt in zip(messages, receipts, strict=True):
            if receipt.answer == "accepted" and receipt.ref and len(groups.setdefault(receipt.ref, {})) < self._most:
                groups[receipt.ref][message.to] = message.id
        for ref, addresses in groups.items():
            if ref in self._open:
                continue  # the vendor repeats an answer: an idempotent request, sent again
            self._keep(Question(ref, addresses, now_s, 0))
        while self.waiting > self._most:
            _, oldest = self._open.popitem(last=False)
            self.waiting -= len(oldest.addresses)
            self.forgotten += len(oldest.addresses)
        if len(self._due) > 2 * len(self._open) + 1_000:  # of those forgotten, while nobody asks
            self._due = [due for due in self._due if due[2] in self._open]
            heapify(self._due)

    def next_s(self) -> float | None:
        """When the next question is due; None when there is none."""
        return self._due[0][0] if self._due else None

    def ask(self, now_s: float) -> Question | None:
        """A question that is due. It is open until `told` or `failed`."""
        while self._due and self._due[0][0] <= now_s:
            question = self._open.get(heappop(self._due)[2])
            if question is None:  # forgotten
                continue
            some = dict(list(question.addresses.items())[:MOST_ADDRESSES])
            return Question(question.ref, some, question.sent_s, question.step)
        return None

    def told(self, question: Question, states: Mapping[str, State], now_s: float) -> list[Report]:
        """What that comes to; the rest is asked for again later."""
        whole = self._open.get(question.ref)
        if whole is None:
            return []
        del self._open[question.ref]
        self.waiting -= len(whole.addresses)
        reports, left = [], dict(whole.addresses)
        for address, id_ in question.addresses.items():
            state = states.get(address)
            if state is not None and state.status != "sent":
                del left[address]
                reports.append(self._report(address, id_, state))
        if left:
            self._again(Question(whole.ref, left, whole.sent_s, whole.step), now_s)
        return reports

    def failed(self, question: Question, now_s: float) -> None:
        """No answer came: asked again at the next step."""
        self.told(question, {}, now_s)

    def _report(self, address: str, id_: str, state: State) -> Report:
        return Report(self._provider, state.status, id=id_, to=address, code=state.code, dead=state.dead)

    def _again(self, question: Question, now_s: float) -> None:
        step = question.step + 1
        while step < len(STEPS_S) and question.sent_s + STEPS_S[step] <= now_s:
            step += 1  # steps that went by
        if step < len(STEPS_S):
            self._keep(Question(question.ref, question.addresses, question.sent_s, step))

    def _keep(self, question: Question) -> None:
        self._open[question.ref] = question
        self._number += 1
        self.waiting += len(question.addresses)
        heappush(self._due, (question.sent_s + STEPS_S[question.step], self._number, question.ref))
