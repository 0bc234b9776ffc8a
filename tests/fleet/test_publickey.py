import pytest
from securesystemslib.signer import CryptoSigner

from fleet.errors import FleetError
from fleet.publickey import public_key_text, read_public_key


def test_a_key_comes_back_as_it_was_with_the_id_that_follows_from_it(tmp_path):
    key = CryptoSigner.generate_ed25519().public_key
    path = tmp_path / "bob.pub.json"
    path.write_bytes(public_key_text(key))
    assert read_public_key(path) == key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"schema":"vigia.public-key/1","ed25519":"00"}',
        b'{"schema":"vigia.public-key/1","ed25519":"' + b"0" * 64 + b'","key_id":"x"}',
        b"x" * 2000,
    ],
)
def test_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "bob.pub.json"
    path.write_bytes(content)
    with pytest.raises(FleetError, match="make-key"):
        read_public_key(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FleetError, match="cannot be read"):
        read_public_key(tmp_path / "none")
