"""A scenario under way at one simulated provider: sets the provider's behaviour when its time has come."""

import asyncio
from collections.abc import Callable
from typing import Any

from channels.simulator.behaviour import Behaviour
from channels.simulator.scenario import Moment, Order, behaviours, moment, stretched


class Play:
    """`base` is the provider's own behaviour, which the steps patch. `show` takes what holds from now on."""

    def __init__(self, order: Order, base: Behaviour, show: Callable[[Behaviour], None]) -> None:
        """Raises BehaviourError."""
        self._order = order
        self._scenario = stretched(order.scenario(), order.stretch)
        self._behaviours = behaviours(base, self._scenario)
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._now = Moment(None, 0.0)
        self._show = show
        self.base = base
        self.over = False

    def go_on(self) -> None:
        """Begin, or take the next step."""
        self._now = moment(self._scenario, self._order.seed, self._loop.time() - self._start_s)
        self.over = self._now.until_s == float("inf")
        if not self.over:
            self._timer = self._loop.call_at(self._start_s + self._now.until_s, self.go_on)
        self._show(self.behaviour)

    def stop(self) -> None:
        """The provider is as it was."""
        if self._timer is not None:
            self._timer.cancel()
        self.over = True
        self._now = Moment(None, float("inf"))
        self._show(self.base)

    def use(self, base: Behaviour) -> None:
        """The provider's own behaviour is another now. Raises BehaviourError."""
        self._behaviours = behaviours(base, self._scenario)
        self.base = base
        self._show(self.behaviour)

    @property
    def behaviour(self) -> Behaviour:
        """What holds now."""
        return self.base if self._now.step is None else self._behaviours[self._now.step]

    def state(self) -> dict[str, Any]:
        """What a reader is shown."""
        step = self._now.step
        return {
            "name": self._order.name,
            "about": self._scenario.about,
            "seed": self._order.seed,
            "elapsed_s": round(self._loop.time() - self._start_s, 3),
            "over": self.over,
            "step": step,
            "note": "" if step is None else self._scenario.steps[step].note,
            "leaves_unsure": self.base.leaves_unsure or any(one.leaves_unsure for one in self._behaviours),
            "behaviour": self.behaviour,
        }
