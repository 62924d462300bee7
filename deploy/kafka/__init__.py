"""A real Apache Kafka broker without Docker, for tests and CI: Java 17 and the jars of Maven artifacts."""

from deploy.kafka.broker import Broker, Security, available, fetch

__all__ = ["Broker", "Security", "available", "fetch"]
