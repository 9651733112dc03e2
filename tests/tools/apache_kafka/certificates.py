"""A certificate authority and a server certificate, new for each cluster."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


def write_certificates(ca_pem: Path, server_pem: Path) -> None:
    """Write the CA's certificate, and the key and certificate of a server on loopback in one file as Kafka wants it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca_pem)
    issued = authority.issue_cert("localhost", "127.0.0.1")
    # Java reads no other form of a private key than PKCS#8.
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server_pem.write_bytes(pkcs8 + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
