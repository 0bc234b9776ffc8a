import io

import pytest

from agent.errors import KeyStoreError
from fleet.passphrases import MAX_PASSPHRASE_BYTES, VARIABLE, Passphrases


def secret_file(tmp_path, content=b"from a file\n", mode=0o600):
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


class Person:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, text):
        self.asked.append(text)
        return self.answers.pop(0)


def test_a_person_is_asked_once_for_each_key():
    person = Person("open sesame", "another one")
    given = Passphrases(environ={}, ask=person)
    assert [given.get("root-1"), given.get("root-1"), given.get("ann")] == [
        "open sesame",
        "open sesame",
        "another one",
    ]
    assert person.asked == ["Passphrase of root-1: ", "Passphrase of ann: "]


def test_a_new_one_is_said_twice():
    person = Person("open sesame", "open sesame")
    given = Passphrases(environ={}, ask=person)
    assert given.new("root-1") == given.get("root-1") == "open sesame"
    with pytest.raises(KeyStoreError, match="not the same"):
        Passphrases(environ={}, ask=Person("open sesame", "open sesam")).new("root-1")


def test_file_before_environment_before_person(tmp_path):
    environ = {VARIABLE: "from the environment"}
    file = secret_file(tmp_path)
    assert Passphrases(file, environ, Person()).get("x") == "from a file"
    assert Passphrases(None, environ, Person()).get("x") == "from the environment"


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}])
def test_without_anything_it_says_what_to_do(environ, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(KeyStoreError, match="--passphrase-file or VIGIA_FLEET_PASSPHRASE"):
        Passphrases(environ=environ).get("root-1")


@pytest.mark.parametrize("short", ["short", "1234567"])
def test_a_short_one_is_refused_for_new_keys_only(short):
    given = Passphrases(environ={VARIABLE: short})
    assert given.get("x") == short
    with pytest.raises(KeyStoreError, match="too short"):
        given.new("x")


def test_an_empty_answer_is_refused():
    with pytest.raises(KeyStoreError, match="empty"):
        Passphrases(environ={}, ask=Person("")).get("x")


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        (b"word\n", 0o644, "can be read by others"),
        (b"\n", 0o600, "is empty"),
        (b"x" * (MAX_PASSPHRASE_BYTES + 1), 0o600, "longer than"),
        (b"\xff\xfe", 0o600, "cannot be read"),
    ],
)
def test_a_file_that_is_not_fit_is_refused(tmp_path, content, mode, fault):
    with pytest.raises(KeyStoreError, match=fault) as caught:
        Passphrases(secret_file(tmp_path, content, mode), {}).get("x")
    assert "word" not in str(caught.value).replace("password", "")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(KeyStoreError, match="cannot be read"):
        Passphrases(tmp_path / "none", {}).get("x")
