"""Who listens there: one TCP connection and a TLS 1.3 handshake, beside the daemon.

The daemon never dials a peer it is connected to, so it can neither tell whether a connected peer would be
reachable by a new connection, nor who else answers at an address. This does, and the answer is proved: libp2p's
TLS certificate carries the peer's key and that key's signature over the certificate (libp2p specs, tls/tls.md),
and the TLS handshake proves that the other end holds the certificate's own key.

Nothing is sent before the other end has greeted as libp2p's multistream-select, which listeners do unasked: a port
that belongs to something else sees an empty connection.
"""

import ssl
import warnings

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from iota_p2p_crypto.errors import MalformedError, PeerUnavailableError
from iota_p2p_crypto.identity import PUBLIC_KEY_BYTES, PeerId, peer_id_of, verify_signature

_MULTISTREAM = b"\x13/multistream/1.0.0\n"
_TLS = b"\x0b/tls/1.0.0\n"
_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_SIGNED_PREFIX = b"libp2p-tls-handshake:"
# DER of SignedKey{publicKey OCTET STRING, signature OCTET STRING}; with an Ed25519 key every length is fixed.
_SIGNED_KEY_HEAD = bytes.fromhex("30680424" + "08011220")
_SIGNATURE_HEAD = bytes.fromhex("0440")
_SIGNED_KEY_BYTES = 106
# Everything the parser may raise on bytes that a stranger chose.
_CERTIFICATE_ERRORS = (
    ValueError,
    CryptographyDeprecationWarning,  # of a malformed field it still tolerates, such as a serial number below 1
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


async def identify_listener(host: str, port: int) -> PeerId:
    """Return the peer that listens at a TCP port; the caller sets the time limit.

    Args:
        host: IP address or DNS name.
        port: TCP port.

    Raises:
        PeerUnavailableError: if no TCP connection can be made.
        MalformedError: if what answers is not libp2p with TLS and an Ed25519 identity.
        InvalidSignatureError: if it claims an identity it does not have.
    """
    try:
        tcp = await trio.open_tcp_stream(host, port)
    except (OSError, UnicodeError) as error:  # the second from a DNS name that cannot be one
        raise PeerUnavailableError(f"expected a TCP connection to {host} port {port}: {error}") from error
    try:
        for ours in (_MULTISTREAM, _TLS):
            if (theirs := await _receive_exactly(tcp, len(ours))) != ours:
                raise MalformedError("not-libp2p", f"expected {ours!r} from {host} port {port}, got {theirs!r}")
            # Theirs first, as said above; then ours with the next proposal behind it.
            if ours is _MULTISTREAM:
                await tcp.send_all(_MULTISTREAM + _TLS)
        tls = trio.SSLStream(tcp, _tls_context())
        await tls.do_handshake()
        return _peer_id_in(tls.getpeercert(binary_form=True) or b"")
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        raise MalformedError("not-libp2p", f"expected a TLS handshake from {host} port {port}, got {error}") from error
    finally:
        await trio.aclose_forcefully(tcp)


def _tls_context() -> ssl.SSLContext:
    """Return a context that takes any certificate: `_peer_id_in` is what checks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["libp2p"])
    return context


async def _receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Return `count` bytes, or fewer if the stream ends before."""
    data = b""
    while len(data) < count and (part := await stream.receive_some(count - len(data))):
        data += part
    return data


def _peer_id_in(certificate: bytes) -> PeerId:
    """Return the peer id a libp2p certificate proves; raises MalformedError or InvalidSignatureError."""
    try:
        with warnings.catch_warnings(action="error", category=CryptographyDeprecationWarning):
            parsed = x509.load_der_x509_certificate(certificate)
            extension = parsed.extensions.get_extension_for_oid(_EXTENSION).value
            key_info = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _CERTIFICATE_ERRORS as error:
        raise MalformedError("tls-certificate", f"expected a certificate of libp2p, got another: {error}") from error
    signed_key = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    head, middle = len(_SIGNED_KEY_HEAD), len(_SIGNED_KEY_HEAD) + PUBLIC_KEY_BYTES
    if (
        len(signed_key) != _SIGNED_KEY_BYTES
        or signed_key[:head] != _SIGNED_KEY_HEAD
        or signed_key[middle : middle + len(_SIGNATURE_HEAD)] != _SIGNATURE_HEAD
    ):
        raise MalformedError("tls-certificate", f"expected an Ed25519 identity, got {signed_key[:200].hex()}")
    peer_id = peer_id_of(signed_key[head:middle])
    verify_signature(peer_id, _SIGNED_PREFIX + key_info, signed_key[middle + len(_SIGNATURE_HEAD) :])
    return peer_id
