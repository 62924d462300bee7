"""The metrics of a collector: counted per request in plain dicts, read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Tally(Collector):
    """What a collector did.

    Attributes:
        requests: (route, status) → requests answered.
        refused: (route, reason) → requests refused.
        events: source → events acknowledged.
        bytes: route → bytes of bodies received, as they were sent.
        seconds: histogram of the time from the head of a request to its answer.
        ack_s: histogram of the time that Kafka took to acknowledge a list.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.refused: dict[tuple[str, str], int] = {}
        self.events: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self.seconds = Histogram("trustwatch_collect_request_seconds", "Seconds from the head of a request that holds"
                                 " events to its answer.", registry=None, buckets=REQUEST_BUCKETS)  # fmt: skip
        self.ack_s = Histogram("trustwatch_collect_ack_seconds", "Seconds that Kafka took to acknowledge a list of"
                               " events.", registry=None, buckets=REQUEST_BUCKETS)  # fmt: skip
        self._now: dict[str, Callable[[], float]] = {}

    def watch(self, **gauges: Callable[[], float]) -> None:
        """Say where the gauges of this process are read: `buffer_bytes`, `requests`, `connections`, `stalled`."""
        self._now = gauges

    def note(self, route: str, status: int, size: int) -> None:
        """A request was answered."""
        key = (route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        if size:
            self.bytes[route] = self.bytes.get(route, 0) + size

    def note_refused(self, route: str, reason: str) -> None:
        """A request was refused."""
        key = (route, reason)
        self.refused[key] = self.refused.get(key, 0) + 1

    def note_events(self, source: str, count: int) -> None:
        """Events were acknowledged."""
        self.events[source] = self.events.get(source, 0) + count

    def collect(self) -> Iterator[Metric]:
        """All metrics of this collector."""
        yield from self._counters()
        for name, meaning in (
            ("buffer_bytes", "Bytes of events that wait for Kafka."),
            ("open_requests", "Requests that are held: being read, or waiting for Kafka."),
            ("open_connections", "Open connections."),
            ("kafka_stalled", "1 if Kafka has taken nothing for some seconds, or refuses."),
        ):
            read = self._now.get(name)
            yield GaugeMetricFamily(f"trustwatch_collect_{name}", meaning, value=read() if read else 0.0)
        yield from self.seconds.collect()
        yield from self.ack_s.collect()

    def _counters(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("trustwatch_collect_requests", "Requests answered.", labels=["route", "status"])
        for (route, status), count in list(self.requests.items()):
            requests.add_metric([route, str(status)], count)
        refused = CounterMetricFamily(
            "trustwatch_collect_refused_requests", "Requests refused, by reason.", labels=["route", "reason"]
        )
        for key, count in list(self.refused.items()):
            refused.add_metric(list(key), count)
        events = CounterMetricFamily("trustwatch_collect_events", "Events that Kafka acknowledged.", labels=["source"])
        for source, count in list(self.events.items()):
            events.add_metric([source], count)
        received = CounterMetricFamily("trustwatch_collect_received_bytes", "Bytes of bodies.", labels=["route"])
        for route, size in list(self.bytes.items()):
            received.add_metric([route], size)
        yield from (requests, refused, events, received)
