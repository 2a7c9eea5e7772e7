"""A stage of a million events, from the workers' messages to its files; prints the memory it took.

`python -m tests.builders.bench_million FOLDER`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.builders.bench_records import MS, make_spec, make_stage
from tgi_cli.runtime.bench.collecting import take_records
from tgi_cli.runtime.bench.exchange import Exchange
from tgi_cli.runtime.bench.measures import measure_stage
from tgi_cli.runtime.bench.messages import Finished
from tgi_cli.runtime.bench.outputs import Outputs, hdr_of
from tgi_cli.runtime.bench.records import RequestRecord

NUM_REQUESTS, NUM_TOKENS = 1000, 1000
GAP = 40 * MS  # between two requests
SLICE = 200  # requests in a message, as a worker sends them


def exchanges(task: asyncio.Task[object]) -> Iterator[Exchange]:
    """Yield requests as a worker holds them when they have ended: a token a delivery."""
    draw = random.Random(5)
    for index in range(NUM_REQUESTS):
        sched = index * GAP
        record = RequestRecord(index=index, phase="measure", sched=sched, wake=sched, sent=sched)
        exchange = Exchange(record, task)
        at = sched + 50 * MS
        for k in range(NUM_TOKENS):
            at += 10 * MS + draw.randrange(MS)
            exchange.at.append(at)
            exchange.num_events.append(1)
            exchange.num_ids.append(0)
            exchange.usage.append(-1)
            exchange.text_ends.append(5 * (k + 1))
        exchange.pieces = ["word " * NUM_TOKENS]
        exchange.reading.usage = NUM_TOKENS
        record.first, record.last, record.end = exchange.at[0], at, at
        record.num_events = NUM_TOKENS
        yield exchange


async def main(folder: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    finished, part = [], []
    for exchange in exchanges(task):
        part.append(exchange.finished())
        if len(part) == SLICE:
            message = msgspec.msgpack.encode(Finished(requests=part))
            finished += msgspec.msgpack.decode(message, type=Finished).requests
            part = []
    requests = take_records(finished, lambda text: len(text.split()))
    record = make_stage(requests, w1=NUM_REQUESTS * GAP)
    stage = measure_stage(record, make_spec())
    stage.hdr = hdr_of(record)
    Outputs(folder, "").add_stage(record, stage, 0.0)
    print(stage.tokens.output, stage.latency.itl.ok.n, peak_bytes())


def peak_bytes() -> int:
    """Return the most memory that this process had. Not `ru_maxrss`: that knows its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
