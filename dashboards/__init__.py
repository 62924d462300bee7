"""What Grafana shows. So far the connection to it (`dashboards.grafana`)."""
