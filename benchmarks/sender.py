"""A process of a contender that makes its tables or enqueues; what it measures it prints as JSON.

python -m benchmarks.sender prepare
python -m benchmarks.sender queue JOB COUNT [ARGUMENT]
python -m benchmarks.sender single COUNT
python -m benchmarks.sender bulk COUNT
python -m benchmarks.sender trickle RATE SECONDS
python -m benchmarks.sender stream RATE SECONDS

In the environment CONTENDER says whose process it is, and TENANTS how many tenants it has.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

from benchmarks.sides import SIDES, Side

# So many are enqueued before the clock starts: connections are open and modules imported then.
WARM_UP = 20


def main(what: str, *arguments: str) -> int:
    import django

    django.setup()
    side: Side = SIDES[os.environ["CONTENDER"]]()
    print(json.dumps(ACTS[what](side, *arguments)))
    return 0


def prepare(side: Side) -> None:
    side.prepare()


def queue(side: Side, job: str, count: str, *args: str) -> None:
    side.queue(job, int(count), *map(int, args))


def single(side: Side, count: str) -> float:
    """Tasks a second, one by one."""
    blocks = side.single()
    each = max(1, int(count) // len(blocks))
    seconds = 0.0
    for number, block in enumerate(blocks):
        with block:
            for _ in range(WARM_UP if number == 0 else 1):
                side.enqueue()
            begun = time.perf_counter()
            for _ in range(each):
                side.enqueue()
            seconds += time.perf_counter() - begun
    return each * len(blocks) / seconds


def bulk(side: Side, count: str) -> float:
    """Tasks a second, in bulk."""
    side.bulk(WARM_UP)
    begun = time.perf_counter()
    side.bulk(int(count))
    return int(count) / (time.perf_counter() - begun)


def trickle(side: Side, rate: str, seconds: str) -> list[float]:
    """One task after another, each with the moment before it is enqueued. Returns how late each was sent: 0."""
    chance = random.Random(1)
    count = round(float(rate) * float(seconds))
    for _ in range(count):
        time.sleep(chance.uniform(0.5, 1.5) / float(rate))
        side.send([time.time()])
    return [0.0] * count


def stream(side: Side, rate: str, seconds: str) -> list[float]:
    """Tasks at random moments (a Poisson process), whether or not those before have run.

    A task's argument is the moment for which it was planned, so that a sender that is late makes it late. What has
    come due meanwhile is sent at once.

    Returns the seconds from each of these moments until the task was on its way.
    """
    chance = random.Random(1)
    begun = time.time() + 0.2
    moments = [begun]
    while moments[-1] < begun + float(seconds):
        moments.append(moments[-1] + chance.expovariate(float(rate)))
    sent, late = 0, []
    while sent < len(moments):
        pause = moments[sent] - time.time()
        if pause > 0:
            time.sleep(pause)
        now = time.time()
        due = sent
        while due < len(moments) and moments[due] <= now:
            due += 1
        side.send(moments[sent:due])
        done = time.time()
        late += [done - moment for moment in moments[sent:due]]
        sent = due
    return late


ACTS: dict[str, Any] = {act.__name__: act for act in (prepare, queue, single, bulk, trickle, stream)}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
