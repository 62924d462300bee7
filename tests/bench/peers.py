"""The peers that `tests.bench.line` is measured beside, each in a process of its own: `NAME BOOTSTRAP EVENTS`.

- bare: aiokafka's `getmany` and msgspec, decode and count; nothing built on them could be faster.
- plain: one Faust agent with a faust.Record, decode and count; what one would write first.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from typing import Any, Final

import msgspec

# A peer loads only what it needs, since its memory is measured: hence the imports in the functions below.

RAW: Final = "bench-raw"


class Run(msgspec.Struct):
    """One measurement: events, their seconds on the clock and of CPU, and the peak of resident memory in MB."""

    events: int
    seconds: float
    cpu_s: float
    rss_mb: float


class Call(msgspec.Struct):
    """The fields of a Segment call that both peers decode."""

    type: str
    messageId: str
    anonymousId: str
    timestamp: str
    context: dict[str, Any]
    properties: dict[str, Any]


class Meter:
    """Measures a peer from within, from the start to the last of so many events."""

    def __init__(self, events: int) -> None:
        self._events, self._seen = events, 0
        self.start()

    def start(self) -> None:
        """Begin to measure."""
        self._began, self._cpu = time.monotonic(), time.process_time()

    def add(self, events: int) -> bool:
        """Count events; writes the measurement to standard error, and returns True, when all are there."""
        self._seen += events
        if self._seen < self._events:
            return False
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        run = Run(self._seen, time.monotonic() - self._began, time.process_time() - self._cpu, rss_mb)
        print(f"\nMEASURED {msgspec.json.encode(run).decode()}", file=sys.stderr, flush=True)
        return True


async def bare(bootstrap: str, events: int) -> None:
    """The bare limit."""
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.subscribe([RAW])
    decode, meter, done = msgspec.json.Decoder(Call).decode, Meter(events), False
    while not done:
        for messages in (await consumer.getmany(timeout_ms=200, max_records=2000)).values():
            for message in messages:
                decode(message.value)
            done = meter.add(len(messages))
    await consumer.stop()


def plain(bootstrap: str, events: int) -> None:
    """Plain Faust; joining its group, which takes seconds, is not measured."""
    import faust  # noqa: PLC0415

    namespace = {"__annotations__": dict(Call.__annotations__), "__module__": __name__}
    record = type("CallRecord", (faust.Record,), namespace, serializer="json")
    app = faust.App(f"plain-{os.getpid()}", broker=f"kafka://{bootstrap}", topic_allow_declare=False, web_enabled=False,
                    topic_disable_leader=True, store="memory://", consumer_auto_offset_reset="earliest",
                    broker_session_timeout=6, broker_heartbeat_interval=1, datadir=os.environ["BENCH_DIR"])  # fmt: skip

    async def handle(stream: Any) -> None:
        meter = None
        async for _ in stream:
            meter = meter or Meter(events)
            if meter.add(1):
                os._exit(0)  # an orderly end would take longer than the measurement, and nobody needs it

    app.agent(app.topic(RAW, value_type=record))(handle)
    sys.argv = sys.argv[:1]  # Faust reads them too
    faust.Worker(app, loglevel="ERROR", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    name, address, number = sys.argv[1:]
    if name == "plain":
        plain(address, int(number))
    else:
        asyncio.run(bare(address, int(number)))
