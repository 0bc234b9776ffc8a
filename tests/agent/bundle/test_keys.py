from pathlib import Path

import pytest

from agent.bundle.filekeys import KEM_FILE, SIGN_FILE
from agent.bundle.keys import make_keys, open_keys
from agent.config import KeyConfig
from agent.errors import KeyStoreError
from agent.statefolder import default_state_dir

FILE = KeyConfig()
CREDENTIAL = KeyConfig(kind="credential")
TOKEN = KeyConfig(kind="pkcs11", module="/nowhere/lib.so", token="vigia", pin="4711")


def test_files_lie_in_the_state_folder(tmp_path):
    made = make_keys(FILE, tmp_path / "state", "p256", {})
    opened = open_keys(FILE, tmp_path / "state", {})
    assert (opened.level, opened.key_id) == ("L0", made.key_id)


def test_opening_makes_no_keys(tmp_path):
    with pytest.raises(KeyStoreError, match="missing"):
        open_keys(FILE, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_credentials_lie_where_systemd_says(tmp_path):
    made = make_keys(FILE, tmp_path / "state", "p256", {})
    place = tmp_path / "credentials"
    place.mkdir()
    for name in (KEM_FILE, SIGN_FILE):
        (tmp_path / "state" / name).rename(place / name)
    environ = {"CREDENTIALS_DIRECTORY": str(place)}
    opened = open_keys(CREDENTIAL, tmp_path / "state", environ)
    assert (opened.level, opened.key_id) == ("L0", made.key_id)
    # Enrolled again they stay, too.
    assert make_keys(CREDENTIAL, tmp_path / "state", "p256", environ).key_id == made.key_id


def test_without_its_credentials_a_device_makes_no_other_keys(tmp_path):
    with pytest.raises(KeyStoreError, match="CREDENTIALS_DIRECTORY"):
        make_keys(CREDENTIAL, tmp_path, "p256", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", [open_keys, lambda *a: make_keys(a[0], a[1], "p256", a[2])])
def test_a_token_without_its_library_is_told_without_the_pin(tmp_path, use):
    pytest.importorskip("pkcs11")
    with pytest.raises(KeyStoreError, match=r"/nowhere/lib.so is no PKCS#11 library") as caught:
        use(TOKEN, tmp_path, {})
    assert "4711" not in str(caught.value)


def test_tokens_have_no_hybrid_keys(tmp_path):
    with pytest.raises(KeyStoreError, match="P-256 only"):
        make_keys(TOKEN, tmp_path, "mlkem768-x25519", {})


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"STATE_DIRECTORY": "/var/lib/vigia", "XDG_STATE_HOME": "/x"}, "/var/lib/vigia"),
        ({"STATE_DIRECTORY": "/var/lib/vigia:/var/lib/other"}, "/var/lib/vigia"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x"}, "/x/vigia"),
        ({"XDG_STATE_HOME": "/x"}, "/x/vigia"),
        ({"XDG_STATE_HOME": "relative"}, "/home/ann/.local/state/vigia"),
        ({}, "/home/ann/.local/state/vigia"),
    ],
)
def test_where_state_lies_by_default(environ, place, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_state_dir(environ) == Path(place)
