"""Where a worker's time goes, step by step, waiting for the servers included: one worker, alone, in this process.

python -m benchmarks.steps COUNT

That many tasks are enqueued already. Prints the microseconds a task as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from typing import Any


def main(count: int) -> int:
    """Run the tasks that are enqueued, and print."""
    import django

    django.setup()
    from tenant_q import tenancy
    from tenant_q.brokers import get_broker
    from tenant_q.cluster import worker
    from tenant_q.cluster.shared_memory import Slot

    tenancy.keep_connections_open()
    tenancy.limit_waits()
    clock = Clock()
    for owner, name, step in steps():
        clock.wrap(owner, name, step)
    one = worker.Worker("steps", get_broker(), Slot(), once=True)
    while one.broker.counts().open:
        one.tick()
    print(json.dumps({step: 1e6 * seconds / count for step, seconds in clock.seconds.items()}))
    return 0


def steps() -> list[tuple[Any, str, str]]:
    """Return the functions that are timed: the owner, the name, and what it does."""
    from tenant_q import tenancy
    from tenant_q.brokers.redis import RedisBroker
    from tenant_q.cluster import admission, attempts, worker
    from tenant_q.lifecycle import save_results
    from tenant_q.scrubbing import serving

    return [
        (RedisBroker, "fetch", "fetch a batch"),
        (admission, "open_package", "check the signature, unpickle"),
        (tenancy, "look_up_together", "look tenants up"),
        (serving, "_enter", "enter the schema, ask where it is"),
        (attempts, "execute", "run the task"),
        (serving, "clean_up", "take back what it left"),
        (save_results, "write", "save the rows"),
        (RedisBroker, "acknowledge", "acknowledge"),
        (worker.Worker, "tick", "all else"),
    ]


class Clock:
    """The seconds that were spent in each step, without those of the steps within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = [0.0]

    def wrap(self, owner: Any, name: str, step: str) -> None:
        """Have the calls of a function count as a step."""
        real = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self._within.append(0.0)
            try:
                return real(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begun
                self.seconds[step] += spent - self._within.pop()
                self._within[-1] += spent

        setattr(owner, name, timed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
