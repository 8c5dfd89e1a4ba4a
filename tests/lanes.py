"""All tests in lanes side by side, as `make test` runs them: what waits for a whole system leaves a core to the others.

Each lane is a pytest of its own over its part of the tests, and there is one dispatcher at a time, in the first lane.
The first lane is shown as it goes, the others whole behind it. The exit status is that of the first lane that failed.
"""

import os
import queue
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SYSTEM: Final = ("tests/endtoend", "tests/faults")
ORACLE: Final = ("tests/test_oracle.py",)
#: A test that takes longer hangs, and its lane ends with a trace before the 15 minutes of a CI run are over.
HANG_S: Final = 600
LANES: Final = {
    "whole systems": SYSTEM,
    "oracle": ORACLE,
    "everything else": ("tests", *(f"--ignore={path}" for path in SYSTEM + ORACLE)),
}


class Lane:
    """A running pytest, and what it has written so far."""

    def __init__(self, words: tuple[str, ...], niceness: int) -> None:
        pytest = [sys.executable, "-m", "pytest", "-o", f"faulthandler_timeout={HANG_S}"]
        command = ["nice", "-n", str(niceness), *pytest, *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._written: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            while data := os.read(out.fileno(), 1 << 16):
                self._written.put(data)
        self._written.put(b"")

    def show(self) -> int:
        """Write what it wrote and goes on to write, until it ends; returns its exit status."""
        while data := self._written.get():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return self.process.wait()


def main(options: list[str]) -> int:
    """Run all lanes; `options` go to each of them."""
    os.environ.setdefault("DISPATCHER_TEST_SEED", str(random.SystemRandom().getrandbits(32)))
    if sys.stdout.isatty():
        options = ["--color=yes", *options]
    lanes: dict[str, Lane] = {}

    def interrupt(number: int, _: object) -> None:
        """Tell the lanes, which then say what they have and end; a terminal has told them of Ctrl-C already."""
        if number == signal.SIGTERM:
            for lane in lanes.values():
                lane.process.send_signal(signal.SIGINT)

    # Before the lanes start: what a background job ignores, its children would ignore as well.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    for name, words in LANES.items():
        # The tests of whole systems measure time: where cores are short, it is the others that wait.
        lanes[name] = Lane((*words, *options), 5 * bool(lanes))
    statuses = []
    for name, lane in lanes.items():
        print(f"== tests: {name}", flush=True)
        statuses.append(lane.show())
    found = ("FAILED" if status else "passed" for status in statuses)
    told = ", ".join(f"{name} {word}" for name, word in zip(lanes, found, strict=True))
    print(f"== tests: {told}")
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
