"""What runs trustwatch and the things around it: images, Compose, Prometheus, a broker for tests."""
