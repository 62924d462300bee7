"""Writes survive whatever passes: in order, never given up; what cannot pass stops the worker and says the fix."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors

from streams import outbox as outbox_module
from streams import patience
from streams.errors import KafkaRefused
from streams.outbox import Outbox
from streams.patience import Sparingly, patiently, pauses
from streams.settings import Settings
from streams.stage import Record

Answer = BaseException | None


class FakeProducer:
    """Keeps what is durable, in order; answers as it is told to."""

    def __init__(self, log: list[str], taking: Callable[[str], Answer], acking: Callable[[str], Answer]) -> None:
        self.log = log
        self.taking = taking
        self.acking = acking
        self.pending: list[asyncio.Future[None]] = []
        self.stopped = False
        self.away = asyncio.Event()
        self.away.set()
        self._sender = SimpleNamespace(sender_task=asyncio.get_running_loop().create_future())
        self._message_accumulator = SimpleNamespace(fail_all=self.fail_all)

    async def send(self, topic: str, *, value: bytes, key: bytes | None, partition: int | None) -> asyncio.Future[None]:
        text = value.decode()
        if (refusal := self.taking(text)) is not None:
            raise refusal
        return asyncio.ensure_future(self._deliver(text))

    async def _deliver(self, text: str) -> None:
        await self.away.wait()
        if (failure := self.acking(text)) is not None:
            raise failure
        self.log.append(text)

    def fail_all(self, error: BaseException) -> None:
        self.log.append(f"closed by {type(error).__name__}")

    async def stop(self) -> None:
        self.stopped = True


def records(*texts: str) -> list[Record]:
    return [Record("topic", 0, b"k", text.encode()) for text in texts]


def fine(_text: str) -> Answer:
    return None


def once(what: str, error: BaseException) -> Callable[[str], Answer]:
    """Answers with an error the first time it is asked about `what`."""
    left = [error]
    return lambda text: left.pop() if text == what and left else None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "STALL_S", 0.05)
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)


def run(
    steps: Callable[[Outbox, list[str], list[FakeProducer]], Any],
    taking: Callable[[str], Answer] = fine,
    acking: Callable[[str], Answer] = fine,
) -> list[str]:
    """Run steps with an outbox on fake producers; returns what became durable."""
    log: list[str] = []
    made: list[FakeProducer] = []

    class Fake(Outbox):
        async def _connect(self) -> Any:
            made.append(FakeProducer(log, taking, acking))
            return made[-1]

    async def main() -> None:
        outbox = Fake(Settings())
        await outbox.on_start()
        await asyncio.wait_for(steps(outbox, log, made), 5.0)
        await outbox.on_stop()

    asyncio.run(main())
    return log


def test_messages_are_durable_in_order_when_send_returns() -> None:
    async def steps(outbox: Outbox, log: list[str], _made: list[FakeProducer]) -> None:
        await outbox.send(records("a", "b"))
        assert log == ["a", "b"]
        await outbox.send([])
        await outbox.send(records("c"))
        assert (outbox.retries, outbox.waiting_s) == (0, 0.0)

    assert run(steps) == ["a", "b", "c"]


def test_what_the_producer_does_not_take_is_given_to_it_again_before_the_next() -> None:
    async def steps(outbox: Outbox, _log: list[str], made: list[FakeProducer]) -> None:
        await outbox.send(records("a", "b", "c"))
        assert len(made) == 1
        assert outbox.retries == 1

    assert run(steps, taking=once("b", errors.KafkaTimeoutError())) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "error", [errors.OutOfOrderSequenceNumber(), errors.UnknownError(), errors.KafkaError("sender crashed")], ids=repr
)
def test_after_an_error_that_no_retry_cures_all_is_sent_again_in_order_by_a_new_producer(
    error: errors.KafkaError,
) -> None:
    async def steps(outbox: Outbox, _log: list[str], made: list[FakeProducer]) -> None:
        await outbox.send(records("a", "b", "c"))
        assert len(made) == 2 and made[0].stopped

    log = run(steps, acking=once("b", error))
    # What follows the failed one may have become durable before it; then it is repeated after it: repeats are harmless.
    assert log[-3:] == ["a", "b", "c"]
    assert log.index("closed by ProducerClosed") == len(log) - 4


def test_others_that_wait_for_the_old_producer_go_on_with_the_new_one() -> None:
    async def steps(outbox: Outbox, log: list[str], made: list[FakeProducer]) -> None:
        closed = errors.ProducerClosed()
        made[0].acking = lambda _text: closed
        await asyncio.gather(*(outbox.send(records(f"{n}a", f"{n}b")) for n in range(5)))
        assert len(made) == 2
        for n in range(5):
            assert log.index(f"{n}a") < log.index(f"{n}b")

    assert len(run(steps)) == 1 + 10


@pytest.mark.parametrize("where", ["taking", "acking"])
@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (errors.MessageSizeTooLargeError(), "topics.max_message_bytes"),
        (errors.TopicAuthorizationFailedError(), "grant"),
    ],
    ids=["size", "rights"],
)
def test_what_no_waiting_cures_stops_the_worker_and_says_the_fix(
    where: str, error: errors.KafkaError, fix: str
) -> None:
    async def steps(outbox: Outbox, _log: list[str], _made: list[FakeProducer]) -> None:
        with pytest.raises(KafkaRefused, match=rf"cannot write to topic.*Fix: .*{fix}"):
            await outbox.send(records("a", "b"))

    run(steps, **{where: once("b", error)})


def test_an_outage_is_told_once_counted_and_its_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def steps(outbox: Outbox, log: list[str], made: list[FakeProducer]) -> None:
        made[0].away.clear()
        sending = [asyncio.create_task(outbox.send(records(text))) for text in "ab"]
        await asyncio.sleep(0.3)
        assert log == []
        assert outbox.retries >= 4
        assert 0.2 < outbox.waiting_s < 2
        made[0].away.set()
        await asyncio.gather(*sending)
        assert outbox.waiting_s == 0

    assert sorted(run(steps)) == ["a", "b"]
    assert caplog.text.count("does not take our writes") == 1
    assert caplog.text.count("takes our writes again") == 1


def test_a_cancelled_write_leaves_nothing_behind() -> None:
    async def steps(outbox: Outbox, _log: list[str], made: list[FakeProducer]) -> None:
        made[0].away.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outbox.send(records("a")), 0.1)
        assert outbox.waiting_s == 0
        made[0].away.set()
        await outbox.send(records("b"))

    assert run(steps)[-1] == "b"


def test_a_call_is_made_until_it_succeeds_and_its_trouble_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    left: list[BaseException] = [errors.KafkaConnectionError(), OSError("refused"), errors.LeaderNotAvailableError()]

    async def call() -> str:
        if left:
            raise left.pop()
        return "done"

    assert asyncio.run(patiently(call, "asking")) == "done"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_call_that_is_refused_for_good_is_not_made_again() -> None:
    async def call() -> None:
        raise errors.GroupAuthorizationFailedError()

    with pytest.raises(KafkaRefused, match="grant"):
        asyncio.run(patiently(call, "asking"))


def test_pauses_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.1)
    pause = pauses()
    assert [round(pause(), 3) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_a_library_that_repeats_itself_is_heard_once_in_a_while() -> None:
    sparingly = Sparingly(10.0)

    def said(message: str, at: float, level: int = logging.WARNING) -> bool:
        record = logging.LogRecord("aiokafka.conn", level, "", 0, message, (), None)
        record.created = at
        return sparingly.filter(record)

    assert [said("away", 100.0 + second) for second in range(12)] == [True, *[False] * 9, True, False]
    assert said("something else", 101.0)
    assert said("away", 102.0, logging.INFO)


def test_whoever_gives_up_is_not_kept_waiting_for_messages_that_were_handed_over() -> None:
    async def steps(outbox: Outbox, log: list[str], made: list[FakeProducer]) -> None:
        made[0].away.clear()  # the first is never acknowledged, the second is not even taken
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await outbox.send(records("a", "b"))
        assert log == []
        assert outbox.waiting_s == 0.0

    run(steps, taking=lambda text: errors.KafkaTimeoutError() if text == "b" else None)
