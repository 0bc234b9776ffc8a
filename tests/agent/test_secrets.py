from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.secrets import HIDDEN, mask_url

SAFE = st.text("abcdefghijkXYZ0123456789-_.", min_size=1, max_size=20)
PASSWORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#"), min_size=6
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@10.0.0.1/s", "rtsp://user:***@10.0.0.1/s"),
        ("rtsp://user:se@cret@10.0.0.1/s", "rtsp://user:***@10.0.0.1/s"),
        ("rtsp://token@host/s", "rtsp://***@host/s"),
        ("http://h/snap?user=a&password=b&x=1", "http://h/snap?user=a&password=***&x=1"),
        ("http://h/?access_token=b", "http://h/?access_token=***"),
        (
            "rtspsrc location=rtsp://u:p@h/s ! fakesink",
            "rtspsrc location=rtsp://u:***@h/s ! fakesink",
        ),
        ("rtsp://10.0.0.1:554/a@b", "rtsp://10.0.0.1:554/a@b"),
        ("no url: me@example.org", "no url: me@example.org"),
    ],
)
def test_passwords_are_hidden_and_the_rest_stays(text, shown):
    assert mask_url(text) == shown


@given(SAFE, PASSWORD, SAFE, SAFE)
def test_no_password_gets_through(user, password, host, path):
    masked = mask_url(f"rtsp://{user}:{password}@{host}/{path}")
    assert masked == f"rtsp://{user}:{HIDDEN}@{host}/{path}"


@given(st.text())
def test_masking_twice_changes_nothing_more(text):
    assert mask_url(mask_url(text)) == mask_url(text)
