"""Certificates for tests, made anew in each run: a CA, brokers' and clients' certificates, as the files that Kafka and
its clients read."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class Authority:
    """A CA of our own.

    Args:
        folder: where its files go.
        name: what they begin with.

    Attributes:
        file: PEM file with its certificate.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def keystore(self, *hosts: str) -> Path:
        """PEM file with a broker's key, as Kafka wants it (PKCS 8), and its certificates."""
        return self._write(f"keystore-{hosts[0]}.pem", self._ca.issue_cert(*hosts))

    def client(self, name: str, password: str | None = None) -> Path:
        """PEM file with a client's key, encrypted if there is a password, and its certificate."""
        issued = self._ca.issue_cert(f"{name}@example.org", common_name=name)
        return self._write(f"client-{name}.pem", issued, password)

    def _write(self, name: str, issued: trustme.LeafCert, password: str | None = None) -> Path:
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
        path = self._folder / name
        path.write_bytes(pem + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return path
