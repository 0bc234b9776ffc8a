import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import Signature

import fleet.vault
from agent.errors import KeyStoreError
from fleet.vault import MAX_FILE_BYTES, WRAPPED, WRAPPING, Vault, change_passphrase
from fleet.vaultfile import SALT_BYTES, KeyFile, close, derive, generate, open_file

WORDS = "correct horse battery"
SECRET = bytes(range(32))


@pytest.fixture
def counted(monkeypatch):
    """Derivations are quick here; gives those that were made."""
    made = []

    def quick(passphrase, salt):
        made.append((passphrase, salt))
        return (passphrase.encode() + salt).ljust(32, b"\x00")[:32]

    monkeypatch.setattr(fleet.vault, "derive", quick)
    return made


@pytest.fixture
def vault(tmp_path, counted):
    return Vault(tmp_path / "keys")


def alter(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_key_signs_once_its_passphrase_is_said(tmp_path):
    key = Vault(tmp_path / "keys").create_key("root-1", WORDS)
    opened = Vault(tmp_path / "keys")
    signature = opened.signer("root-1", WORDS).sign(b"data")
    assert key == opened.public_key("root-1")
    opened.public_key("root-1").verify_signature(signature, b"data")
    with pytest.raises(KeyStoreError, match="does not open"):
        opened.signer("root-1", "correct horse batterz")


def test_files_are_for_their_owner_and_hold_no_open_key(vault, tmp_path):
    vault.create_key("root-1", WORDS)
    path = tmp_path / "keys" / "root-1.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    raw = vault.private_key("root-1", WORDS).private_bytes_raw()
    content = path.read_text()
    assert raw.hex() not in content
    assert WORDS not in content


@pytest.mark.parametrize(("kind", "keytype"), [("ed25519", "ed25519"), ("p256", "ecdsa")])
def test_both_kinds_of_key_sign(vault, kind, keytype):
    key = vault.create_key("one", WORDS, kind)
    assert key.keytype == keytype
    signature = vault.signer("one", WORDS).sign(b"data")
    assert isinstance(signature, Signature)
    key.verify_signature(signature, b"data")


def test_a_keys_file_is_all_that_another_machine_needs(vault, tmp_path):
    key = vault.create_key("release-1", WORDS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "keys" / "release-1.key").rename(elsewhere / "release-1.key")
    assert Vault(elsewhere).signer("release-1", WORDS).public_key == key
    assert vault.names() == []


def test_a_name_is_used_once(vault):
    first = vault.create_key("director", WORDS)
    with pytest.raises(KeyStoreError, match="already"):
        vault.create_key("director", "another passphrase")
    assert vault.signer("director", WORDS).public_key == first


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a.b", "x" * 65, "a\n", "é"])
def test_names_cannot_leave_the_folder(vault, name):
    for use in (
        lambda: vault.create_key(name, WORDS),
        lambda: vault.public_key(name),
        lambda: vault.signer(name, WORDS),
    ):
        with pytest.raises(KeyStoreError, match="no key can be called"):
            use()


def test_only_keys_are_listed(vault, tmp_path):
    assert vault.names() == []
    vault.create_key("b", WORDS)
    vault.create_key("a", WORDS)
    (tmp_path / "keys" / "notes.txt").write_text("")
    (tmp_path / "keys" / ".c.key").write_text("")
    assert vault.names() == ["a", "b"]


def test_a_passphrase_is_worked_out_once_in_a_command(vault, counted):
    for name in ("a", "b", "c"):
        vault.create_key(name, WORDS)
        vault.signer(name, WORDS)
    assert len(counted) == 1
    vault.create_key("d", "another passphrase")
    assert len({salt for _words, salt in counted}) == len(counted) == 2


def test_two_vaults_with_one_passphrase_share_no_salt(tmp_path, counted):
    for place in ("x", "y"):
        Vault(tmp_path / place).create_key("a", WORDS)
    (_, one), (_, other) = counted
    assert one != other
    assert len(one) == SALT_BYTES


def test_a_missing_key_is_named(vault):
    with pytest.raises(KeyStoreError, match=r"none\.key is missing"):
        vault.signer("none", WORDS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"no json",
        b"\x00" * 100,
        b"x" * (MAX_FILE_BYTES + 1),
        b"[" * 5000,
    ],
)
def test_what_is_no_key_file_is_one_kind_of_error(vault, tmp_path, content):
    vault.create_key("a", WORDS)
    (tmp_path / "keys" / "a.key").write_bytes(content)
    for use in (vault.public_key, lambda name: vault.signer(name, WORDS)):
        with pytest.raises(KeyStoreError, match="backup"):
            use("a")


def test_a_folder_in_a_keys_place_is_told(vault, tmp_path):
    (tmp_path / "keys" / "a.key").mkdir(parents=True)
    with pytest.raises(KeyStoreError, match="cannot be read"):
        vault.public_key("a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyStoreError, match="cannot be written"):
        Vault(tmp_path / "file").create_key("a", WORDS)


@pytest.mark.parametrize("field", ["public", "salt", "nonce", "sealed"])
def test_no_part_of_a_key_file_can_be_another_keys(vault, tmp_path, field):
    vault.create_key("a", WORDS)
    # Made by another command, and so with another salt.
    Vault(tmp_path / "keys").create_key("b", WORDS)
    other = json.loads((tmp_path / "keys" / "b.key").read_text())
    alter(tmp_path / "keys" / "a.key", **{field: other[field]})
    with pytest.raises(KeyStoreError, match="does not open"):
        vault.signer("a", WORDS)


@pytest.mark.parametrize(
    "changes",
    [
        {"kdf": "scrypt-n1073741824-r8-p1"},
        {"kdf": "none"},
        {"kind": "rsa"},
        {"kind": "p256"},
        {"public": "no key"},
        {"nonce": "zz"},
        {"extra": 1},
    ],
)
def test_a_file_of_another_form_is_refused(vault, tmp_path, changes):
    vault.create_key("a", WORDS)
    alter(tmp_path / "keys" / "a.key", **changes)
    with pytest.raises(KeyStoreError):
        vault.public_key("a")


@pytest.mark.parametrize("nonce", ["00", "00" * 500])
def test_a_nonce_of_another_length_is_one_kind_of_error(vault, tmp_path, nonce):
    vault.create_key("a", WORDS)
    alter(tmp_path / "keys" / "a.key", nonce=nonce)
    with pytest.raises(KeyStoreError, match="does not open"):
        vault.signer("a", WORDS)


def test_a_secret_is_wrapped_without_a_passphrase_and_opened_with_it(vault, tmp_path):
    vault.create_wrapping_key(WORDS)
    wrapped = Vault(tmp_path / "keys").wrap_secret(SECRET)
    assert SECRET not in wrapped
    assert wrapped != vault.wrap_secret(SECRET)
    assert vault.unwrap_secret(wrapped, WORDS) == SECRET
    with pytest.raises(KeyStoreError, match="passphrase does not open"):
        vault.unwrap_secret(wrapped, "another passphrase")


def test_a_secret_of_another_vault_does_not_open(vault, tmp_path):
    vault.create_wrapping_key(WORDS)
    other = Vault(tmp_path / "other")
    other.create_wrapping_key(WORDS)
    with pytest.raises(KeyStoreError, match="another vault, or altered"):
        vault.unwrap_secret(other.wrap_secret(SECRET), WORDS)


def test_a_vault_without_the_key_to_wrap_with_says_so(vault):
    with pytest.raises(KeyStoreError, match="is missing"):
        vault.wrap_secret(SECRET)
    vault.create_key(WRAPPING, WORDS, "ed25519")
    with pytest.raises(KeyStoreError, match="not of the kind"):
        vault.wrap_secret(SECRET)
    with pytest.raises(KeyStoreError, match="not of the kind"):
        vault.unwrap_secret(b"", WORDS)


KEY = bytes(32)
FILE = close(generate("ed25519"), bytes(SALT_BYTES), KEY)


@given(st.binary(max_size=200))
def test_garbage_for_a_private_key_is_a_value_error(raw):
    spoilt = FILE.model_copy(update={"sealed": raw.hex()})
    with pytest.raises(ValueError):
        open_file(spoilt, KEY)


@given(st.binary(max_size=200), st.booleans())
def test_garbage_for_a_secret_is_one_kind_of_error(raw, marked):
    class Opened(Vault):
        def private_key(self, _name, _passphrase):
            return SHARED

    with pytest.raises(KeyStoreError):
        Opened(None).unwrap_secret(WRAPPED + raw if marked else raw, WORDS)


SHARED = generate("p256")


def test_a_file_says_how_it_was_closed():
    assert FILE.kdf == "scrypt-n131072-r8-p1"
    assert KeyFile.model_validate_json(FILE.encode()) == FILE


def test_a_passphrase_is_the_same_however_its_accents_are_composed():
    assert derive("caf\u00e9", bytes(16)) == derive("cafe\u0301", bytes(16))


def test_a_passphrase_may_be_any_bytes_of_an_environment():
    given_by_os = b"\xff\xfe".decode(errors="surrogateescape")
    assert len(derive(given_by_os, bytes(16))) == 32


@pytest.mark.usefixtures("counted")
class TestAnotherPassphrase:
    NEW = "five quite different words here"

    @pytest.fixture
    def files(self, vault, tmp_path):
        for name in ("audit", "director"):
            vault.create_key(name, WORDS)
        vault.create_wrapping_key(WORDS)
        return sorted((tmp_path / "keys").glob("*.key"))

    def test_opens_the_same_keys_and_the_old_one_does_not(self, vault, files):
        before = {path.stem: vault.public_key(path.stem) for path in files}
        secret = vault.wrap_secret(SECRET)
        assert change_passphrase(files, WORDS, self.NEW) == files
        again = Vault(files[0].parent)
        assert {path.stem: again.public_key(path.stem) for path in files} == before
        assert again.unwrap_secret(secret, self.NEW) == SECRET
        assert not again.opens("director", WORDS)
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    def test_a_wrong_old_one_changes_nothing(self, vault, files):
        before = [path.read_bytes() for path in files]
        with pytest.raises(KeyStoreError, match="does not open"):
            change_passphrase(files, "wrong horse battery", self.NEW)
        assert [path.read_bytes() for path in files] == before

    def test_what_was_broken_off_is_completed(self, vault, files):
        change_passphrase(files[:1], WORDS, self.NEW)
        assert change_passphrase(files, WORDS, self.NEW) == files[1:]
        assert all(Vault(files[0].parent).opens(path.stem, self.NEW) for path in files)

    def test_only_key_files_are_taken(self, files, tmp_path):
        with pytest.raises(KeyStoreError, match="no key file"):
            change_passphrase([tmp_path / "keys" / "bob.pub.json"], WORDS, self.NEW)
