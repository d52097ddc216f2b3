from hashlib import sha256

from iota_p2p_crypto.digest import DIGEST_BYTES, digest, tagged_digest


def test_digest__is_sha_256() -> None:
    # FIPS 180-2, appendix B.1.
    assert digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert len(digest(b"")) == DIGEST_BYTES


def test_tagged_digest__is_sha_256_over_length_prefixed_parts() -> None:
    expected = sha256(b"\0\0\0\0\0\0\0\x03tag" + b"\0\0\0\0\0\0\0\x02ab" + b"\0\0\0\0\0\0\0\0").digest()
    assert tagged_digest("tag", b"ab", b"") == expected


def test_tagged_digest__differs_wherever_the_split_differs() -> None:
    digests = {
        tagged_digest("t", b"ab", b"c"),
        tagged_digest("t", b"a", b"bc"),
        tagged_digest("t", b"abc"),
        tagged_digest("t", b"abc", b""),
        tagged_digest("ta", b"b", b"c"),
        tagged_digest("t"),
    }
    assert len(digests) == 6
