"""A real Apache Kafka broker without Docker, for tests and CI: Java 17 and the jars of Maven artifacts."""

from deploy.kafka.broker import Broker, available, fetch

__all__ = ["Broker", "available", "fetch"]
