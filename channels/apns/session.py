"""One HTTP/2 connection: requests out, each on a stream of its own, whole replies back. Source: RFC 9113."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hpack import Encoder
from msgspec import Struct

from channels.adapter import NotWritten, Reply, Written
from channels.address import Addresses
from channels.apns.frames import Frames, Goaway
from channels.apns.wire import Header

#: Streams at once, whatever the server would allow: h2 looks at each open one whenever another is opened.
MOST_STREAMS: Final = 250
_LONGEST_REPLY_BYTES: Final = 64 * 1024
#: Streams of one connection in its life; the numbers end at 2**31.
_LAST_STREAM: Final = 2**30
_CONFIG: Final = H2Configuration(
    client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
)  # our own headers are right


class _Encoder(Encoder):
    """Headers as they are: Huffman's code would save a fifth of the bytes for a third of the CPU."""

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        return super().encode(headers, huffman=False)


class Place(Struct, frozen=True):
    """Where to connect; without `tls` in the clear."""

    host: str
    port: int
    authority: str
    tls: SSLContext | None = None


class Flight:
    """A request that is on its way. `future` fails with Written or NotWritten when no whole reply comes any more."""

    __slots__ = ("body", "future", "headers", "session", "status", "stream")

    def __init__(self, session: "Session", stream: int, future: asyncio.Future[Reply]) -> None:
        self.session = session
        self.stream = stream
        self.future = future
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # seen: no complaint where nobody waits


class Session(asyncio.Protocol):
    """`lost` is done when the connection is over, and says why. `on_room` is called when there may be room."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        self._on_room = on_room
        self._settled: asyncio.Future[None] = loop.create_future()  # the server's settings are here
        self._h2 = H2Connection(_CONFIG)
        self._h2.local_settings = Settings(initial_values={SettingCodes.ENABLE_PUSH: 0})
        self._h2.encoder = _Encoder()
        self._frames = Frames(self._h2.max_inbound_frame_size)
        self._transport: asyncio.Transport | None = None
        self._flights: dict[int, Flight] = {}
        self._flush_due = False
        self._told: list[Callable[[], None]] = []
        self._paused = False
        self._leaving = ""
        self._probe: asyncio.TimerHandle | None = None
        self._heard_s = loop.time()

    def __repr__(self) -> str:
        return f"Session({len(self._flights)} in flight)"

    @classmethod
    async def open(cls, place: Place, addresses: Addresses, on_room: Callable[[], None]) -> "Session":
        """A session whose server has said what it allows. Raises OSError, or what ended the connection as Written."""
        session = cls(on_room)
        connected = await addresses.connect(place.host, place.port)
        try:
            _keep_alive(connected)
            host = place.host if place.tls is not None else None
            await session._loop.create_connection(lambda: session, sock=connected, ssl=place.tls, server_hostname=host)
            session._check_protocol(place)
            await session._settled
        except BaseException:
            session.abort("not connected")
            if session._transport is None:
                connected.close()
            raise
        return session

    def _check_protocol(self, place: Place) -> None:
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if place.tls is not None and tls is not None and tls.selected_alpn_protocol() != "h2":
            raise OSError("the server does not speak HTTP/2")

    # -- out

    @property
    def usable(self) -> bool:
        """Whether requests may still be written to it."""
        return not self._leaving

    @property
    def room(self) -> int:
        """Streams that may be opened now."""
        if self._leaving or self._paused:
            return 0
        return min(self._h2.remote_settings.max_concurrent_streams, MOST_STREAMS) - len(self._flights)

    @property
    def full(self) -> bool:
        """Whether it carries all that it ever will. Until Apple has taken a first request it allows one stream."""
        return self._h2.remote_settings.max_concurrent_streams > 1 and self.room <= 0

    def takes(self, size_bytes: int) -> bool:
        """Whether a request with such a body can be written now, whole."""
        if self.room <= 0:
            return False
        windows = (self._h2.outbound_flow_control_window, self._h2.remote_settings.initial_window_size)
        return size_bytes <= min(*windows, self._h2.max_outbound_frame_size)

    def submit(self, headers: list[Header], body: bytes) -> Flight:
        """Writes the request, with others of this turn of the loop. Only after `takes`."""
        stream = self._h2.get_next_available_stream_id()
        flight = Flight(self, stream, self._loop.create_future())
        self._h2.send_headers(stream, headers)
        self._h2.send_data(stream, body, end_stream=True)
        self._flights[stream] = flight
        self._flush_soon()
        if stream >= _LAST_STREAM:
            self._leave("its stream numbers are used up")
        return flight

    def tell(self, written: Callable[[], None]) -> None:
        """Calls `written` once the kernel has what was submitted, if it takes it at once."""
        self._told.append(written)
        self._flush_soon()

    def abandon(self, flight: Flight, timed_out_s: float | None) -> None:
        """Its reply is not waited for any more. When nothing at all was heard for the half of the time that it was
        waited for, the server is asked whether it is there."""
        if self._flights.pop(flight.stream, None) is None:
            return
        flight.future.cancel()
        with contextlib.suppress(H2Error):
            self._h2.reset_stream(flight.stream, ErrorCodes.CANCEL)
        self._flush_soon()
        if timed_out_s is not None and self._probe is None and self._loop.time() - self._heard_s > timed_out_s / 2:
            self._enquire(timed_out_s)
        self._after_a_stream()

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._transport is None or self._transport.is_closing():
            return
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)
        if self._told:
            self._loop.call_soon(self._tell)  # uvloop writes at the end of a turn

    def _tell(self) -> None:
        told, self._told = self._told, []
        if self._transport is not None and not self.lost.done() and self._transport.get_write_buffer_size() == 0:
            for written in told:
                written()

    def _enquire(self, patience_s: float) -> None:
        self._h2.ping(b"dispatch")
        self._probe = self._loop.call_later(patience_s, self.abort, "the server is silent")
        self._flush_soon()

    # -- in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if self.lost.done():
            self._transport.abort()
            return
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.lost.done():
            return
        self._heard_s = self._loop.time()
        try:
            for part in self._frames.feed(data):
                if isinstance(part, Goaway):
                    self._on_goaway(part)
                else:
                    for event in self._h2.receive_data(part):
                        self._on(event)
        except Exception as error:  # whatever a parser raises on odd bytes, the connection is over
            self._flush()
            self.abort(f"the server sent what is no HTTP/2: {type(error).__name__}")
            return
        self._flush()
        self._on_room()

    def _on(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            self._on_head(event)
        elif isinstance(event, DataReceived):
            self._on_data(event)
        elif isinstance(event, StreamEnded):
            self._on_end(event.stream_id)
        elif isinstance(event, StreamReset):
            self._on_reset(event)
        elif isinstance(event, RemoteSettingsChanged):
            if not self._settled.done():
                self._settled.set_result(None)
        elif isinstance(event, PingAckReceived) and self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def _on_head(self, event: ResponseReceived) -> None:
        flight = self._flights.get(event.stream_id or 0)
        if flight is None:
            return
        for name, value in event.headers or ():
            flight.headers[_text(name)] = _text(value)
        status = flight.headers.pop(":status", "")
        flight.status = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 0

    def _on_data(self, event: DataReceived) -> None:
        stream = event.stream_id or 0
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
        flight = self._flights.get(stream)
        if flight is None:
            return
        flight.body += event.data or b""
        if len(flight.body) > _LONGEST_REPLY_BYTES:
            flight.fail(Written(f"the reply is longer than {_LONGEST_REPLY_BYTES} bytes"))
            self.abandon(flight, None)

    def _on_end(self, stream: int | None) -> None:
        flight = self._flights.pop(stream or 0, None)
        if flight is None:
            return
        if not flight.future.done():
            flight.future.set_result(Reply(flight.status, flight.headers, flight.body))
        self._after_a_stream()

    def _on_reset(self, event: StreamReset) -> None:
        flight = self._flights.pop(event.stream_id or 0, None)
        if flight is None:
            return
        if event.error_code == ErrorCodes.REFUSED_STREAM:  # RFC 9113, 8.7: it was not looked at
            flight.fail(NotWritten("the server refused the stream"))
        else:
            flight.fail(Written(f"the server reset the stream: error {event.error_code!r}"))
        self._after_a_stream()

    def _on_goaway(self, goaway: Goaway) -> None:
        """Streams above the last one it names were not looked at (RFC 9113, 6.8); the others may still be answered."""
        why = f"the server goes away: error {goaway.error}{goaway.reason and f', {goaway.reason}'}"
        self._leave(why)
        for stream in [stream for stream in self._flights if stream > goaway.last]:
            self._flights.pop(stream).fail(NotWritten(why))
        self._after_a_stream()

    def _after_a_stream(self) -> None:
        if self._leaving and not self._flights and self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._on_room()

    # -- the end

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection ended: {exc or 'closed by the server'}")

    def abort(self, why: str) -> None:
        """Ends the connection; what is in flight is Written."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Says good-bye and ends the connection."""
        if self._transport is not None and not self._leaving:
            with contextlib.suppress(H2Error):
                self._h2.close_connection()
            self._flush()
            self._leave("the connection was closed")
            self._transport.close()
        self._end("the connection was closed")

    def _leave(self, why: str) -> None:
        self._leaving = self._leaving or why

    def _end(self, why: str) -> None:
        why = self._leaving or why
        self._leave(why)
        if self._probe is not None:
            self._probe.cancel()
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            flight.fail(Written(why))
        if not self._settled.done():
            self._settled.set_exception(OSError(why))
            self._settled.exception()  # seen
        if not self.lost.done():
            self.lost.set_result(why)


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _keep_alive(connected: socket.socket) -> None:
    """The kernel finds out within a minute that nobody is there any more; Apple wants no PINGs for that."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
