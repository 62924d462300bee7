"""What to do when Kafka does not answer or does not take something: wait and try again, unless it said no for good.

A broker that restarts, a partition without leader or too few replicas pass; the line waits for them. What nobody but a
person can put right (rights, sizes, names) stops the worker, with a message that says the fix.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiokafka import errors

from streams.errors import KafkaRefused

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
RIGHTS: Final = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
SIZES: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)
OTHERS: Final = (
    errors.InvalidTopicError,
    errors.PolicyViolationError,
    errors.UnsupportedVersionError,
    errors.IncompatibleBrokerVersion,
    errors.UnrecognizedBrokerVersion,
)
FINAL: Final = (*RIGHTS, *SIZES, *OTHERS)
"""Errors that no waiting cures."""
log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")


class Sparingly(logging.Filter):
    """Lets each message of a logger pass once in `every_s` seconds: a client without a broker says it all the time."""

    def __init__(self, every_s: float = 30.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to say it."""
        key = (record.name, str(record.msg))
        if record.levelno < logging.WARNING or record.created - self._said.get(key, 0.0) >= self._every_s:
            self._said[key] = record.created
            return True
        return False


def calm(prefix: str) -> None:
    """Have all loggers of a library speak sparingly."""
    sparingly = Sparingly()
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith(prefix) and isinstance(logger, logging.Logger):
            logger.addFilter(sparingly)


def refused(error: BaseException, what: str) -> KafkaRefused:
    """The error that stops the worker, with the fix."""
    if isinstance(error, SIZES):
        fix = "raise topics.max_message_bytes and the topic's max.message.bytes, or lower checkpoints.chunk_bytes"
    elif isinstance(error, RIGHTS):
        fix = "grant this user READ and WRITE on the topics and READ on the groups; see kafka.sasl_*"
    else:
        fix = "see `trustwatch doctor`"
    return KafkaRefused(f"{what}: {error!r}. Fix: {fix}")


def pauses() -> Callable[[], float]:
    """Seconds to wait before each next try: doubling, up to `LONGEST_PAUSE_S`."""
    pause_s = FIRST_PAUSE_S / 2

    def after() -> float:
        nonlocal pause_s
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    return after


async def patiently(call: Callable[[], Awaitable[ResultT]], what: str) -> ResultT:
    """The result of a call to Kafka, tried until it succeeds; the first failure is logged.

    Raises:
        KafkaRefused: Kafka said no for good.
    """
    pause, failed = pauses(), False
    while True:
        try:
            result = await call()
        except FINAL as error:
            raise refused(error, what) from error
        except (errors.KafkaError, OSError, TimeoutError) as error:
            log.log(logging.DEBUG if failed else logging.WARNING, "%s: %r; trying again until it works", what, error)
            failed = True
            await asyncio.sleep(pause())
        else:
            if failed:
                log.info("%s: works again", what)
            return result
