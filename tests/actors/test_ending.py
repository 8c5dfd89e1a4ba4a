"""A task ends although it lost a cancellation."""

import asyncio

import pytest

from actors import ending
from tests.support import run


def test_a_task_that_lost_a_cancellation_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.01)
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    async def scene() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await ending.end(task)
        assert task.cancelled()

    run(scene(), timeout_s=10)
    assert lost == 3


def test_what_it_ended_with_is_nobodys_concern() -> None:
    async def broken() -> None:
        raise ValueError("x")

    async def scene() -> None:
        task = asyncio.create_task(broken())
        await asyncio.sleep(0)
        await ending.end(task)
        assert task.done()

    run(scene(), timeout_s=10)
