"""The peers that `tests.bench.line` is measured beside, each in a process of its own: `NAME BOOTSTRAP TOPIC EVENTS`.

- bare: aiokafka's `getmany` and msgspec's decoder, nothing else; nothing built on them could be faster.
- plain: one Faust agent with a faust.Record, and the pure stages per event: what one would write first.
- quix: quixstreams, bytes in, and the same pure stages per event.
- bytewax: its Kafka source, one worker, and the same pure stages per event.

The pure stages are those of trustwatch itself: door (decode, scrub, sort), sessionize, watch. The peers hand them one
event at a time, in memory: no frames in Kafka, no checkpoints. So they do the same work, and find the same.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Final, NoReturn

import msgspec

from tests.bench._line_run import Meter

# A peer loads only what it needs, since its memory is measured: hence the imports in the functions below.

GROUP: Final = f"peer-{os.getpid()}"


class Call(msgspec.Struct):
    """The fields of a Segment call."""

    type: str
    messageId: str
    anonymousId: str
    timestamp: str
    context: dict[str, Any]
    properties: dict[str, Any]
    event: str = ""


class PureStages:
    """All pure stages of trustwatch for one event after the other; ends the process after the last.

    Args:
        topic: raw topic that the events come from.
        events: messages to come.
    """

    def __init__(self, topic: str, events: int) -> None:
        from streams.ingest import Door, Raw  # noqa: PLC0415
        from streams.privacy import Privacy  # noqa: PLC0415
        from streams.units import Plan  # noqa: PLC0415
        from tests.bench._line_load import RAW_PARTITIONS, settings_of  # noqa: PLC0415

        settings = settings_of(
            topics={"raw": [{"name": topic, "format": "segment"}], "raw_partitions": RAW_PARTITIONS,
                    "events_partitions": 1, "counts_partitions": 1},
            # Clients read one partition far ahead of another: what is ahead waits.
            limits={"pending_events": 10_000_000},
        )  # fmt: skip
        plan = Plan(settings)
        self._door = Door(settings, Privacy.from_settings(settings), {topic: RAW_PARTITIONS})
        for partition in range(RAW_PARTITIONS):
            self._door.open_source(f"{topic}/{partition}")
        self._sessionizer, self._watcher = plan.sessionizer(0), plan.watcher(0)
        self._raw, self._topic, self._frames = Raw, topic, 0
        self._meter = Meter(events)

    def handle(self, partition: int, offset: int, timestamp_ms: int, value: bytes) -> None:
        """One message through all stages."""
        self._meter.begin()
        written = timestamp_ms / 1000
        self._door.take([self._raw(self._topic, partition, offset, value, time=written)], written)
        for _, frame in self._door.flush(written).frames:
            counts = self._sessionizer.apply(frame, self._frames)
            self._frames += 1
            if counts is not None:
                self._watcher.apply(counts)
        if self._meter.add():
            self._end()

    def _end(self) -> NoReturn:
        totals = self._sessionizer.state.totals
        print(totals, file=sys.stderr)
        self._meter.say(applied=totals.applied, steps=totals.steps, findings=sum(self._watcher.begun.values()))
        os._exit(0)  # an orderly end may take longer than the measurement, and nobody needs it


async def bare(bootstrap: str, topic: str, events: int) -> None:
    """The bare limit."""
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.subscribe([topic])
    decode, meter, done = msgspec.json.Decoder(Call).decode, Meter(events), False
    while not done:
        for messages in (await consumer.getmany(timeout_ms=200, max_records=2000)).values():
            meter.begin()
            for message in messages:
                decode(message.value)
            done = meter.add(len(messages))
    meter.say()
    await consumer.stop()


def plain(bootstrap: str, topic: str, events: int) -> None:
    """Plain Faust."""
    import faust  # noqa: PLC0415

    namespace = {"__annotations__": dict(Call.__annotations__), "__module__": __name__, "event": ""}
    record = type("CallRecord", (faust.Record,), namespace, serializer="json")
    app = faust.App(GROUP, broker=f"kafka://{bootstrap}", topic_allow_declare=False, web_enabled=False,
                    topic_disable_leader=True, store="memory://", consumer_auto_offset_reset="earliest",
                    broker_session_timeout=30, broker_heartbeat_interval=1,
                    datadir=os.environ["BENCH_DIR"])  # fmt: skip
    handle = PureStages(topic, events).handle

    async def read(stream: Any) -> None:
        async for event in stream.events():  # its value is the Record
            message = event.message
            handle(message.partition, message.offset, int(message.timestamp * 1000), message.value)

    app.agent(app.topic(topic, value_type=record))(read)
    sys.argv = sys.argv[:1]  # Faust reads them too
    faust.Worker(app, loglevel="ERROR", quiet=True, redirect_stdouts=False).execute_from_commandline()


def quix(bootstrap: str, topic: str, events: int) -> None:
    """A quixstreams application."""
    from quixstreams import Application, message_context  # noqa: PLC0415

    app = Application(
        bootstrap,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="WARNING",
        state_dir=os.environ["BENCH_DIR"],
    )
    handle = PureStages(topic, events).handle

    def each(value: bytes, _key: object, timestamp_ms: int, _headers: object) -> None:
        context = message_context()
        handle(context.partition, context.offset, timestamp_ms, value)

    frame = app.dataframe(app.topic(topic, key_deserializer="bytes", value_deserializer="bytes"))
    frame.update(each, metadata=True)
    app.run()


def bytewax(bootstrap: str, topic: str, events: int) -> None:
    """A bytewax dataflow on one worker."""
    import bytewax.operators as op  # noqa: PLC0415
    from bytewax.connectors.kafka import KafkaSource  # noqa: PLC0415
    from bytewax.dataflow import Dataflow  # noqa: PLC0415
    from bytewax.testing import TestingSink, run_main  # noqa: PLC0415

    handle = PureStages(topic, events).handle

    def each(message: Any) -> bool:
        handle(message.partition, message.offset, message.timestamp[1], message.value)
        return False

    flow = Dataflow("bench")
    read = op.input("read", flow, KafkaSource([bootstrap], [topic]))
    op.output("out", op.filter("stages", read, each), TestingSink([]))
    run_main(flow)


def main() -> None:
    """Run the peer that the command line names."""
    name, bootstrap, topic, events = sys.argv[1:]
    if name == "bare":
        asyncio.run(bare(bootstrap, topic, int(events)))
    else:
        {"plain": plain, "quix": quix, "bytewax": bytewax}[name](bootstrap, topic, int(events))


if __name__ == "__main__":
    main()
