"""The whole installation on loopback, without Docker: what `docker-compose.yml` runs, but for Grafana."""

from deploy.stack.configs import alertmanager_config, prometheus_config
from deploy.stack.programs import missing_programs
from deploy.stack.receiver import Receiver
from deploy.stack.stack import Ports, Stack

__all__ = ["Ports", "Receiver", "Stack", "alertmanager_config", "missing_programs", "prometheus_config"]
