"""Kubernetes manifests; `python -m deploy.k8s` writes the one that is generated."""
