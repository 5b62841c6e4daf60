"""A TLS ClientHello built by hand, so that an attack can bend one field and leave the others right.

Unbent it is a hello that OpenSSL answers, for TLS 1.2 and TLS 1.3 (RFC 5246 7.4.1.2, RFC 8446 4.1.2;
server_name is RFC 6066 3, encrypted_client_hello is draft-ietf-tls-esni).
"""

import hashlib
from collections.abc import Iterable, Sequence

SERVER_NAME = 0x0000
ENCRYPTED_CLIENT_HELLO = 0xFE0D
ENCRYPTED_SNI = 0xFFCE  # the draft before
_SUPPORTED_GROUPS, _EC_POINT_FORMATS, _SIGNATURE_ALGORITHMS, _ALPN = 0x000A, 0x000B, 0x000D, 0x0010
_PADDING, _EXTENDED_MASTER_SECRET, _SUPPORTED_VERSIONS = 0x0015, 0x0017, 0x002B
_PSK_KEY_EXCHANGE_MODES, _KEY_SHARE = 0x002D, 0x0033
_X25519, _SECP256R1, _X25519MLKEM768 = 0x001D, 0x0017, 0x11EC
_GREASE = 0x1A1A
_CIPHERS = (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030)
_SIGNATURES = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
_MLKEM768_KEY = 1184

# An SSLv2 ClientHello that offers TLS 1.0 (RFC 5246 E.2).
SSLV2_HELLO = bytes.fromhex("802b01030100120000001000000a000005000004000001000080000003") + bytes(range(16))


def client_hello(
    sni: str | bytes = "www.example.com",
    *,
    no_sni: bool = False,
    duplicate: str | bytes | None = None,
    two_names: str | bytes | None = None,
    name_type: int = 0,
    ech: bool | bytes = False,
    alpn: Sequence[str] = ("http/1.1",),
    versions: Sequence[int] = (0x0304, 0x0303),
    record_version: int = 0x0301,
    legacy_version: int = 0x0303,
    record_type: int = 0x16,
    handshake_type: int = 1,
    handshake_length: int | None = None,
    session_id: bytes = bytes(range(32)),
    ciphers: Sequence[int] = _CIPHERS,
    compression: bytes = b"\x00",
    grease: bool = False,
    post_quantum: bool = False,
    padding: int | None = None,
    extra_extensions: Iterable[tuple[int, bytes]] = (),
    record_size: int = 16384,
    trailing: bytes = b"",
) -> bytes:
    """The records of one ClientHello.

    `duplicate` adds a second server_name extension with that name, `two_names` a second name to the first
    extension's list. `ech=True` adds an encrypted_client_hello as browsers send it when they have nothing to
    hide; bytes are its body. `versions=()` leaves supported_versions out (TLS 1.2). `handshake_length` lies
    about the length of the message; `padding` adds that many bytes in an extension; `record_size` cuts the
    message into records of at most that; `trailing` follows the message inside the last record.
    """
    extensions: list[tuple[int, bytes]] = []
    if not no_sni:
        extensions.append((SERVER_NAME, _server_names(name_type, sni, two_names)))
    if duplicate is not None:
        extensions.append((SERVER_NAME, _server_names(name_type, duplicate)))
    extensions += _usual_extensions(alpn, versions, grease, post_quantum)
    if ech:
        extensions.append((ENCRYPTED_CLIENT_HELLO, ech if isinstance(ech, bytes) else _outer_ech()))
    extensions += extra_extensions
    if padding is not None:
        extensions.append((_PADDING, bytes(padding)))
    ciphers = [_GREASE, *ciphers] if grease else ciphers
    body = (
        legacy_version.to_bytes(2)
        + hashlib.sha256(b"client random").digest()
        + _vector(1, session_id)
        + _vector(2, b"".join(cipher.to_bytes(2) for cipher in ciphers))
        + _vector(1, compression)
        + _vector(2, b"".join(kind.to_bytes(2) + _vector(2, data) for kind, data in extensions))
    )
    length = len(body) if handshake_length is None else handshake_length
    message = bytes([handshake_type]) + length.to_bytes(3) + body + trailing
    pieces = [message[at : at + record_size] for at in range(0, len(message), record_size)]
    return b"".join(bytes([record_type]) + record_version.to_bytes(2) + _vector(2, piece) for piece in pieces)


def _vector(size: int, data: bytes) -> bytes:
    """Data after its length in `size` bytes."""
    return len(data).to_bytes(size) + data


def _server_names(name_type: int, *names: str | bytes | None) -> bytes:
    encoded = [name.encode() if isinstance(name, str) else name for name in names if name is not None]
    return _vector(2, b"".join(bytes([name_type]) + _vector(2, name) for name in encoded))


def _usual_extensions(
    alpn: Sequence[str], versions: Sequence[int], grease: bool, post_quantum: bool
) -> list[tuple[int, bytes]]:
    groups, shares = [_X25519, _SECP256R1], [(_X25519, hashlib.sha256(b"x25519").digest())]
    if post_quantum:
        groups.insert(0, _X25519MLKEM768)
        shares.insert(0, (_X25519MLKEM768, bytes(_MLKEM768_KEY) + hashlib.sha256(b"hybrid").digest()))
    if grease:
        groups.insert(0, _GREASE)
        shares.insert(0, (_GREASE, b"\x00"))
        versions = [_GREASE, *versions] if versions else versions
    extensions = [
        (_EXTENDED_MASTER_SECRET, b""),
        (_EC_POINT_FORMATS, b"\x01\x00"),
        (_SUPPORTED_GROUPS, _vector(2, b"".join(group.to_bytes(2) for group in groups))),
        (_SIGNATURE_ALGORITHMS, _vector(2, b"".join(scheme.to_bytes(2) for scheme in _SIGNATURES))),
    ]
    if grease:
        extensions.insert(0, (_GREASE, b""))
    if alpn:
        extensions.append((_ALPN, _vector(2, b"".join(_vector(1, name.encode()) for name in alpn))))
    if versions:
        extensions += [
            (_SUPPORTED_VERSIONS, _vector(1, b"".join(version.to_bytes(2) for version in versions))),
            (_PSK_KEY_EXCHANGE_MODES, b"\x01\x01"),
            (_KEY_SHARE, _vector(2, b"".join(group.to_bytes(2) + _vector(2, key) for group, key in shares))),
        ]
    return extensions


def _outer_ech() -> bytes:
    """Outer hello, HKDF-SHA256 and AES-128-GCM, a config number, an encapsulated key and a payload."""
    key = hashlib.sha256(b"ech key").digest()
    payload = hashlib.shake_256(b"ech payload").digest(144)
    return b"\x00\x00\x01\x00\x01\x2a" + _vector(2, key) + _vector(2, payload)
