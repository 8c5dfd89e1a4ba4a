"""Which triggers of a stream are unanswered, and what an answer means. Pure: no clock, no sockets.

A stream is sent over one connection after another; each is a *leg*. The server counts `seq` from 0 on every leg, the
caller over the whole stream. A leg resends first what earlier legs left unanswered, in the caller's order.
"""

from collections import Counter, deque

from msgspec import Struct

from dispatcher.answers import STATUSES
from dispatcher.client.answers import LegSummary, Result, Summary
from dispatcher.client.errors import BadAnswer, Cut
from dispatcher.client.lines import Key, Line


class Unanswered(Struct, gc=False):
    """One trigger without an answer. `repeat`: the same trigger was already unanswered when this one came."""

    seq: int
    line: Line
    repeat: bool
    sends: int = 0


class Ledger:
    """Keeps every unanswered trigger until exactly one answer to it was given out."""

    def __init__(self) -> None:
        self._unanswered: dict[int, Unanswered] = {}  # by the caller's seq; ascending, since answers only remove
        self._keys: Counter[Key] = Counter()
        self._to_send: deque[Unanswered] = deque()
        self._leg: dict[int, Unanswered] = {}  # sent on this leg and unanswered, by the leg's seq
        self._leg_sent = 0
        self._next_seq = 0
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._resent = 0
        self._unanswered_bytes = 0
        self.ended = False  # the caller has no more triggers

    @property
    def unanswered(self) -> int:
        """How many triggers have no answer yet."""
        return len(self._unanswered)

    @property
    def unanswered_bytes(self) -> int:
        """Their size."""
        return self._unanswered_bytes

    @property
    def answered(self) -> int:
        """How many were answered."""
        return self._next_seq - len(self._unanswered)

    @property
    def in_flight(self) -> int:
        """How many of them were sent on this leg."""
        return len(self._leg)

    @property
    def leg_sent(self) -> int:
        """How many triggers this leg has sent."""
        return self._leg_sent

    def admit(self, line: Line) -> None:
        """Take the caller's next trigger."""
        entry = Unanswered(self._next_seq, line, repeat=self._keys[line.key] > 0)
        self._next_seq += 1
        self._keys[line.key] += 1
        self._unanswered_bytes += len(line.data)
        self._unanswered[entry.seq] = entry
        self._to_send.append(entry)

    def refuse(self, reason: str) -> Result:
        """The caller's next trigger cannot be sent at all; the result it gets."""
        result = Result(seq=self._next_seq, status="rejected", reason=reason)
        self._next_seq += 1
        self._count(result)
        return result

    def start_leg(self) -> None:
        """A new connection: everything unanswered is to be sent on it, in the caller's order."""
        self._leg = {}
        self._leg_sent = 0
        self._to_send = deque(self._unanswered.values())

    def take(self, max_bytes: int, max_lines: int) -> bytes:
        """The next lines to send: about `max_bytes` (at least one line), at most `max_lines`, none when none wait."""
        lines: list[bytes] = []
        size_bytes = 0
        while self._to_send and size_bytes < max_bytes and len(lines) < max_lines:
            entry = self._to_send.popleft()
            self._resent += entry.sends > 0
            entry.sends += 1
            self._leg[self._leg_sent] = entry
            self._leg_sent += 1
            lines.append(entry.line.data)
            size_bytes += len(entry.line.data)
        return b"".join(lines)

    def settle(self, answer: Result) -> Result | None:
        """The result to give out for an answer of this leg; None for one that was given out before."""
        if not 0 <= answer.seq < self._leg_sent:
            raise BadAnswer(f"an answer for seq {answer.seq}, but only {self._leg_sent} were sent")
        if answer.status not in STATUSES:
            raise BadAnswer(f"an answer with the status {answer.status!r}")
        entry = self._leg.pop(answer.seq, None)
        if entry is None:
            return None
        self._forget(entry)
        result = first_answer(answer, entry.seq, entry.line.id, resent=entry.sends > 1 and not entry.repeat)
        self._count(result)
        return result

    def close(self, summary: LegSummary, silent: bool) -> None:
        """The server's summary of this leg. `silent`: it did not send the accepted results.

        The server read `summary.total` lines in order: what it read and did not answer was accepted. Raises Cut when
        the summary does not bear that out, so that those are sent again.
        """
        read = {seq: entry for seq, entry in self._leg.items() if seq < summary.total}
        if summary.total > self._leg_sent:
            raise BadAnswer(f"a summary of {summary.total}, but only {self._leg_sent} were sent")
        if not silent and read:
            raise Cut(f"the summary came before {len(read)} results")
        if silent and len(read) != summary.accepted:
            raise Cut(f"the summary counts {summary.accepted} accepted, but {len(read)} were not answered otherwise")
        for seq, entry in read.items():
            del self._leg[seq]
            self._forget(entry)
        self._counts["accepted"] += len(read)

    def summary(self) -> Summary:
        """The counts so far."""
        counts = {status: self._counts[status] for status in STATUSES}
        return Summary(
            **counts,
            total=sum(counts.values()),
            reasons=dict(self._reasons),
            resent=self._resent,
        )

    def _forget(self, entry: Unanswered) -> None:
        del self._unanswered[entry.seq]
        self._unanswered_bytes -= len(entry.line.data)
        self._keys[entry.line.key] -= 1
        if not self._keys[entry.line.key]:
            del self._keys[entry.line.key]

    def _count(self, result: Result) -> None:
        self._counts[result.status] += 1
        if result.status != "accepted" and result.reason:
            self._reasons[result.reason.partition(":")[0]] += 1


def first_answer(answer: Result, seq: int, trigger_id: str, resent: bool) -> Result:
    """The answer in the caller's terms: its seq and id, and for a duplicate of an own resend what the first send got.

    A resent trigger that already was a duplicate before this stream cannot be told from that and gets its first
    answer too: the answer that told them apart is the one that was lost.
    """
    first = answer.first if resent and answer.status == "duplicate" else None
    if first is None:
        return Result(answer.status, seq, trigger_id, answer.reason, answer.messages, answer.first)
    return Result(first.status, seq, trigger_id, first.reason, answer.messages)
