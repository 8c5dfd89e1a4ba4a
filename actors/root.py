"""The composition root: the only file that knows Ray. Starts actors, and lets them call each other by name."""

import logging
import os
from collections.abc import Callable
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from actors.gateway import GatewayRole
from actors.host import Spec, spec_encoder
from actors.ports import Call, PeerGone
from actors.roles import RouterRole, SenderRole, ShardRole

#: Arguments and answers up to this size travel inside the call instead of through the object store, which costs a
#: millisecond more (measured: 150 KB 4.6 ms through the store, 2.7 ms inside).
INLINE_BYTES: Final = 1_000_000
#: How long Ray waits for the cause of an actor's death before it fails the calls that were out. Its own default of a
#: second is a second of messages handed to a dead sender, whose outcome nobody knows.
DEATH_NEWS_MS: Final = 50
OBJECT_STORE_BYTES: Final = 128 * 1024 * 1024
#: Named actors of one system; two systems on one cluster keep apart by their run.
NAMESPACE: Final = "dispatcher:{run}"

_ROLES: Final[dict[str, type[Any]]] = {
    "gateway": GatewayRole,
    "shard": ShardRole,
    "router": RouterRole,
    "sender": SenderRole,
}


def join(address: str, run: str, log_level: str) -> None:
    """Start a local Ray, or join the cluster at `address`. Call once, before any other function here."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers would run at nice 15
    os.environ.setdefault("RAY_max_direct_call_object_size", str(INLINE_BYTES))
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # a repeated error line is a fact, too
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_timeout_ms_task_wait_for_death_info", str(DEATH_NEWS_MS))
    own: dict[str, Any] = {"address": address} if address else {
        "address": "local",
        "num_cpus": os.cpu_count() or 1,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    level = logging.getLevelName(log_level.upper())
    ray.init(**own, namespace=NAMESPACE.format(run=run), logging_level=level, log_to_driver=True)


def leave() -> None:
    """End this process's part in Ray; a local Ray ends with it."""
    ray.shutdown()


def spawn(spec: Spec) -> None:
    """Start an actor under its name. It comes back by itself whenever its process dies."""
    role = ray.remote(_ROLES[spec.role])
    _kept[spec.name] = role.options(
        name=spec.name, num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=1000
    ).remote(spec_encoder.encode(spec), reach)


def dismiss(name: str) -> None:
    """End an actor for good."""
    handle = _kept.pop(name, None)
    if handle is not None:
        ray.kill(handle, no_restart=True)


def reach(name: str, method: str) -> Call:
    """One method of the actor of that name, wherever it runs. Raises PeerGone when called while it is not there."""
    return _Remote(name, method)


#: Handles of the actors this process started: an actor lives as long as someone holds it.
_kept: Final[dict[str, Any]] = {}


class _Remote:
    """A call over Ray. The handle is looked up once and again after the actor was replaced."""

    __slots__ = ("_method", "_name", "_submit")

    def __init__(self, name: str, method: str) -> None:
        self._name = name
        self._method = method
        self._submit: Callable[[bytes], Any] | None = None

    async def __call__(self, batch: bytes, /) -> bytes:
        try:
            if self._submit is None:
                self._submit = getattr(ray.get_actor(self._name), self._method).remote
            answer: bytes = await self._submit(batch)
        except (RayActorError, GetTimeoutError) as error:
            self._submit = None
            raise PeerGone(f"{self._name}: {type(error).__name__}") from error
        except ValueError as error:  # Ray's word for a name nobody has
            if self._submit is not None:
                raise
            raise PeerGone(f"{self._name} is not there") from error
        return answer

    def __reduce__(self) -> tuple[Any, ...]:
        return _Remote, (self._name, self._method)
