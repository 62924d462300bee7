"""Every exception of trustwatch, on one page.

Each message says what failed, where (topic, partition, offset, file or knob) and what to do. Bad *input* never raises:
it becomes a `streams.events.Rejection` and ends as a dead letter.
"""

from __future__ import annotations


class TrustwatchError(Exception):
    """Root of the tree; the command line turns it into one line and exit code 1."""


class ConfigError(TrustwatchError):
    """A setting, mapping file or journey file is wrong. The message names the knob. Exit code 2."""


class UsageError(TrustwatchError):
    """The command was called with arguments that cannot work together. Exit code 2."""


class TopicMismatch(ConfigError):
    """A topic is missing or has other partitions, retention or compaction than configured."""


class BrokerUnavailable(TrustwatchError):
    """Kafka did not answer; the message says which address was tried."""


class KafkaRefused(TrustwatchError):
    """Kafka said no for good (authorisation, a message too large …); trying again would not help."""


class GrafanaUnavailable(TrustwatchError):
    """Grafana did not answer as it should; the message names the setting."""


class GrafanaRefused(GrafanaUnavailable):
    """Grafana said no for good (token, rights, conflict, input); `status` is the HTTP status it said it with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class CheckpointRefused(TrustwatchError):
    """A stored checkpoint could not be decoded or belongs to another version or other parameters."""


class DetectorFailed(TrustwatchError):
    """One detector raised; it is isolated and counted, the line goes on."""
