import os
import stat
import threading

import pytest

from agent.bundle.filekeys import (
    KEM_FILE,
    SIGN_FILE,
    TLS_FILE,
    load_credentials,
    load_keys,
    load_tls,
    make_keys,
    make_tls,
)
from agent.bundle.grant import grant_info, seal_grant
from agent.bundle.softkeys import KemKey, private_pem
from agent.errors import KeyStoreError

FILES = (KEM_FILE, SIGN_FILE, TLS_FILE)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "state"
    make_keys(place, "p256")
    make_tls(place)
    return place


def load(folder, name):
    return load_tls(folder) if name == TLS_FILE else load_keys(folder)


def shown(keys):
    return (keys.kem, keys.kem_public, keys.sign_public_pem)


def test_each_purpose_has_a_key_of_its_own_for_the_owner_only(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in FILES} == {0o600}
    keys = load_keys(folder)
    tls = load_tls(folder).public_key().public_numbers()
    points = {keys.kem_public[1:33], tls.x.to_bytes(32, "big")}
    assert len(points) == 2
    assert load_tls(folder).public_key() != keys._signing.public_key()


def test_made_again_the_keys_stay(folder):
    before = shown(load_keys(folder)), private_pem(load_tls(folder))
    make_keys(folder, "mlkem768-x25519")
    make_tls(folder)
    assert (shown(load_keys(folder)), private_pem(load_tls(folder))) == before


def test_a_hybrid_key_is_kept_like_any_other(tmp_path):
    made = make_keys(tmp_path / "state", "mlkem768-x25519")
    loaded = load_keys(tmp_path / "state")
    assert loaded.kem == "mlkem768-x25519"
    info = grant_info("ab" * 32, "d", 1)
    grant = seal_grant(made.kem, made.kem_public, bytes(32), info)
    assert loaded.open_grant(grant, info) == bytes(32)


def test_two_that_make_keys_at_once_get_the_same(tmp_path):
    meet = threading.Barrier(4)
    made = []

    def work():
        meet.wait()
        try:
            made.append(shown(make_keys(tmp_path / "state", "p256")))
        except KeyStoreError as error:
            made.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = shown(load_keys(tmp_path / "state"))
    assert all(one == final for one in made), made


def test_what_an_interrupted_run_has_left_does_no_harm(tmp_path):
    place = tmp_path / "state"
    place.mkdir()
    (place / f".{KEM_FILE}.new").write_bytes(b"half")
    make_keys(place, "p256")
    assert sorted(path.name for path in place.iterdir()) == sorted((KEM_FILE, SIGN_FILE))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_use_is_refused_with_the_cure(folder, name, mode):
    (folder / name).chmod(mode)
    with pytest.raises(KeyStoreError, match=f"say `chmod 600 {folder / name}`"):
        load(folder, name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", FILES)
def test_a_key_of_somebody_else_is_refused_with_the_cure(folder, name):
    os.chown(folder / name, 12345, 12345)
    with pytest.raises(KeyStoreError, match=f"say `chown 0 {folder / name}`"):
        load(folder, name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_key_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(KeyStoreError, match=f"{name} is missing; `vigia enroll`"):
        load(folder, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"",
        lambda text: text[:100],
        lambda text: b"\x00" * len(text),
        lambda text: text * 100,
        lambda text: KemKey.generate("mlkem768-x25519").pem().split(b"-----END")[0],
        lambda text: b"-----BEGIN ENCRYPTED PRIVATE KEY-----" + text[27:],
    ],
)
def test_a_damaged_key_is_refused_without_its_content(folder, name, spoil):
    path = folder / name
    secret = path.read_bytes().splitlines()[1].decode()
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(KeyStoreError, match="damaged") as caught:
        load(folder, name)
    chain = f"{caught.value!r}{caught.value.__cause__!r}"
    assert secret not in chain


def test_the_key_of_another_purpose_is_no_wrong_kind_but_a_hybrid_cannot_sign(folder):
    (folder / SIGN_FILE).write_bytes(KemKey.generate("mlkem768-x25519").pem())
    with pytest.raises(KeyStoreError, match="not the kind"):
        load_keys(folder)


@pytest.mark.parametrize("name", FILES)
def test_links_and_pipes_are_no_keys(folder, name):
    path = folder / name
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(KeyStoreError, match="cannot be read"):
        load(folder, name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(KeyStoreError, match="cannot be read"):
        load(folder, name)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for make in (lambda: make_keys(tmp_path / "file", "p256"), lambda: make_tls(tmp_path / "file")):
        with pytest.raises(KeyStoreError, match="cannot be made"):
            make()


def credentials(folder):
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_credentials_of_systemd_are_taken_as_it_gives_them(folder):
    for name in (KEM_FILE, SIGN_FILE):
        # How an access list for the service's user shows.
        (folder / name).chmod(0o440)
    assert shown(load_credentials(credentials(folder)))[0] == "p256"
    (folder / KEM_FILE).chmod(0o444)
    with pytest.raises(KeyStoreError, match="read by others"):
        load_credentials(credentials(folder))


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_without_credentials_it_says_how_to_have_some(environ):
    with pytest.raises(KeyStoreError, match="LoadCredential"):
        load_credentials(environ)
