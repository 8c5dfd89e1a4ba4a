"""The composition root: the only file that knows Ray. Starts actors, and lets them call each other by name."""

import asyncio
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, Final, cast

import msgspec
import ray

from actors.cluster import set_environment, unreachable
from actors.gateway import GatewayRole
from actors.host import Spec, spec_decoder, spec_encoder
from actors.ports import Call, PeerAbsent
from actors.roles import RouterRole, SenderRole, ShardRole
from actors.wire import Address, Listener, Wire, wired

OBJECT_STORE_BYTES: Final = 128 * 1024 * 1024
#: A cluster that has not let us in by then never will: Ray itself asks on for ever.
JOIN_S: Final = 60.0
#: Named actors of one system; two systems on one cluster keep apart by their run.
NAMESPACE: Final = "dispatcher:{run}"

LOOPBACK: Final = "127.0.0.1"
_log = logging.getLogger(__name__)
_address_encoder: Final = msgspec.msgpack.Encoder()
_address_decoder: Final = msgspec.msgpack.Decoder(Address)


class _Actor:
    """What Ray runs: a role, and the listener through which it is called."""

    ROLE: ClassVar[type[Any]]

    def __init__(self, spec: bytes) -> None:
        clustered = bool(spec_decoder.decode(spec).config.ray.address)
        host = cast(Any, ray.util).get_node_ip_address() if clustered else LOOPBACK
        self._listener = Listener(self.ROLE(spec, reach))
        self._listening = asyncio.ensure_future(self._listen(host))

    async def _listen(self, host: str) -> Address:
        """Without a listener nobody could ever call this process: it ends, and Ray starts another."""
        try:
            return await self._listener.open(host)
        except OSError:
            _log.exception("an actor cannot listen")
            await asyncio.sleep(1.0)  # no busy loop of restarts
            os._exit(1)

    async def where(self, _: bytes) -> bytes:
        """The `Address` of this actor's listener."""
        return _address_encoder.encode(await asyncio.shield(self._listening))


class GatewayActor(_Actor):
    ROLE = GatewayRole


class ShardActor(_Actor):
    ROLE = ShardRole


class RouterActor(_Actor):
    ROLE = RouterRole


class SenderActor(_Actor):
    ROLE = SenderRole


_ACTORS: Final[dict[str, type[_Actor]]] = {
    "gateway": GatewayActor,
    "shard": ShardActor,
    "router": RouterActor,
    "sender": SenderActor,
}


class JoinError(Exception):
    """There is no Ray to run in; the text says why."""


async def join(address: str, run: str, log_level: str) -> None:
    """Start a local Ray, or join the cluster at `address`. Call once, before any other function here. Raises JoinError.

    Cancelled, Ray goes on starting by itself: see `half_way`.
    """
    set_environment()
    why = await asyncio.to_thread(unreachable, address) if address else None
    if why is not None:
        raise JoinError(why)
    own: dict[str, Any] = {"address": address} if address else {
        "address": "local",
        "num_cpus": os.cpu_count() or 1,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    level = logging.getLevelName(log_level.upper())
    logging.getLogger("ray._private.worker").addFilter(_not_of_sigterm)
    init = partial(ray.init, **own, namespace=NAMESPACE.format(run=run), logging_level=level, log_to_driver=True)
    joining = asyncio.get_running_loop().run_in_executor(_beside, init)
    _joins.append(joining)
    try:
        async with asyncio.timeout(JOIN_S if address else None):
            await asyncio.shield(joining)
        _take_back(signal.SIGTERM)
    except TimeoutError:
        raise JoinError(f"no Ray cluster has let this one in at {address} within {JOIN_S:.0f} s") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise JoinError(f"{error}") from error


def half_way() -> bool:
    """Whether Ray was left alone while it started. Nothing can stop it then, and its own way out would wait for it:
    only the end of this process ends it."""
    return any(not joining.done() for joining in _joins)


async def leave() -> None:
    """End this process's part in Ray; a local Ray ends with it."""
    for wire in _wires.values():
        wire.cut()
    if _joins and not half_way():
        await asyncio.get_running_loop().run_in_executor(_beside, ray.shutdown)


def spawn(spec: Spec) -> None:
    """Start an actor under its name. It comes back by itself whenever its process dies."""
    actor = ray.remote(_ACTORS[spec.role])
    _kept[spec.name] = actor.options(
        name=spec.name, num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=1000
    ).remote(spec_encoder.encode(spec))


def dismiss(name: str) -> None:
    """End an actor for good."""
    handle = _kept.pop(name, None)
    if handle is not None:
        ray.kill(handle, no_restart=True)


def reach(name: str, method: str) -> Call:
    """One method of the actor of that name, wherever it runs. Raises PeerGone; PeerAbsent while it is not there."""
    return _Remote(name, method)


#: Handles of the actors this process started: an actor lives as long as someone holds it.
_kept: Final[dict[str, Any]] = {}


#: Ray blocks for seconds when it starts and when it ends; the loop hears signals meanwhile. One thread, kept for life:
#: the processes of a local Ray end with the thread that started them (prctl(2), PR_SET_PDEATHSIG).
_beside: Final = ThreadPoolExecutor(1, "ray")
_joins: Final[list[asyncio.Future[Any]]] = []  # one at most


def _take_back(number: signal.Signals) -> None:
    """Ray's C++ takes SIGTERM for a crash: it prints a stack, calls who had the signal before, and aborts three seconds
    later (absl, failure_signal_handler). Python does not know that its handler was replaced."""
    handler = signal.getsignal(number)
    if callable(handler):
        signal.signal(number, handler)
        signal.siginterrupt(number, False)


def _not_of_sigterm(record: logging.LogRecord) -> bool:
    """Ray warns that it takes no SIGTERM in this thread. It should not: the command does."""
    return "SIGTERM handler is not set" not in record.getMessage()


class _Remote:
    """A call over the wire to the actor of that name. All calls of this process to one actor share one connection; it
    is made when it is needed, and again after the actor was replaced."""

    __slots__ = ("_method", "_name")

    def __init__(self, name: str, method: str) -> None:
        self._name = name
        self._method = method.encode()

    async def __call__(self, batch: bytes, /) -> bytes:
        wire = _wires.get(self._name)
        if wire is None or wire.lost:
            wire = await _connected(self._name)
        return await wire.call(self._method, batch)


_wires: Final[dict[str, Wire]] = {}
_connecting: Final[dict[str, asyncio.Task[Wire]]] = {}


async def _connected(name: str) -> Wire:
    """The one connection to this actor, for all who wait for it. Raises PeerAbsent."""
    task = _connecting.get(name)
    if task is None:
        task = _connecting[name] = asyncio.get_running_loop().create_task(_connect(name))
        task.add_done_callback(lambda _: _connecting.pop(name))
    return await asyncio.shield(task)


async def _connect(name: str) -> Wire:
    try:
        told: bytes = await ray.get_actor(name).where.remote(b"")
    except ValueError as error:  # Ray's word for a name nobody has
        raise PeerAbsent(f"{name} is not there") from error
    except Exception as error:  # whatever keeps Ray from saying where it listens: nobody was called
        raise PeerAbsent(f"{name}: {type(error).__name__}") from error
    wire = _wires[name] = await wired(name, _address_decoder.decode(told))
    return wire
