import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.bundle.strict import MAX_DEPTH, Document, Fraction, Name, Text, decode
from agent.errors import ManifestError


class Note(Document):
    name: Name
    text: Text = ""
    share: Fraction | None = None
    parts: tuple[int, ...] = ()


def read(data, limit=10_000):
    return decode(Note, data, "note", limit)


def test_a_document_is_read_as_it_was_written():
    note = Note(name="a", share=0.5, parts=(1, 2))
    assert note.encode() == b'{"name":"a","text":"","share":0.5,"parts":[1,2]}'
    assert read(note.encode()) == note


def test_absent_fields_are_left_out():
    assert b"share" not in Note(name="a").encode()


def test_values_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Note(name="a").name = "b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"name": "a"', "not JSON"),
        (b'{"name": "a"} x', "not JSON"),
        (b"[]", "the whole"),
        (b"null", "the whole"),
        (b'"name"', "the whole"),
        (b'{"name": "a", "name": "b"}', "a key stands twice"),
        (b'{"name": "a", "share": NaN}', "NaN is no JSON number"),
        (b'{"name": "a", "share": -Infinity}', "no JSON number"),
        (b'{"name": "a", "share": 1e999}', "share"),
        (b'{"name": "a", "share": "0.5"}', "share"),
        (b'{"name": "a", "share": 1.1}', "share"),
        (b'{"name": "a", "parts": [1.0]}', r"parts\.0"),
        (b'{"name": "a", "parts": [true]}', r"parts\.0"),
        (b'{"name": "a", "parts": {"0": 1}}', "parts"),
        (b'{"name": 1}', "name"),
        (b'{"name": "a\\n"}', "name"),
        (b'{"name": "a", "text": "\\u001b[2J"}', "printable"),
        (b'{"name": "a", "text": "\\ud800"}', "not JSON|the whole|text"),
        (b'{"name": "a", "other": 1}', "other"),
        (b'{"name": "a", "parts": [' + b"9" * 5000 + b"]}", "not JSON|parts"),
        ('{"name": "a"}'.encode("utf-16"), "the whole"),
        (b'\xef\xbb\xbf{"name": "a"}', "the whole|not JSON"),
    ],
)
def test_what_is_no_such_document_is_refused(data, message):
    with pytest.raises(ManifestError, match=message):
        read(data)


def test_more_bytes_than_allowed_are_refused_unread():
    with pytest.raises(ManifestError, match="note: 11 bytes are more than the 10 allowed"):
        read(b"x" * 11, 10)


@pytest.mark.parametrize("depth", [MAX_DEPTH, 1000, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_deep_nesting_is_refused(depth, pair):
    data = pair[0] * depth + "1" + pair[1] * depth
    with pytest.raises(ManifestError):
        read(data.encode(), 10**7)


def test_a_key_from_outside_is_shown_short_and_printable():
    key = "\\u001b" + "x" * 5000
    with pytest.raises(ManifestError) as caught:
        read(f'{{"name": "a", "{key}": 1}}'.encode())
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_garbage_is_refused_by_one_family(data):
    with pytest.raises(ManifestError):
        read(data)


@settings(max_examples=200)
@given(st.builds(Note, name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)))
def test_one_changed_byte_is_refused_or_gives_a_document(note):
    data = bytearray(note.encode())
    for at in range(len(data)):
        changed = bytes(data[:at]) + b"\x00" + bytes(data[at + 1 :])
        with pytest.raises(ManifestError):
            read(changed)
