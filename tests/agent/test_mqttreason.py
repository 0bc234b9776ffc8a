from __future__ import annotations

import errno
import socket
import ssl

import pytest

from agent.mqttreason import (
    explain_connack,
    explain_connect,
    explain_disconnect,
    explain_loss,
    explain_silence,
    explain_tls,
)

WHERE = "broker.example:1883"


@pytest.mark.parametrize(
    ("error", "stage", "words"),
    [
        (socket.gaierror(-2, "unknown"), "resolve", "the host name is not known; check mqtt.host"),
        (UnicodeError("label too long"), "resolve", "the host name is not known"),
        (ConnectionRefusedError(), "tcp", "nothing listens there; check mqtt.host and mqtt.port"),
        (TimeoutError(), "tcp", "no answer within 3 s; check mqtt.host"),
        (OSError(errno.EHOSTUNREACH, "no route"), "tcp", "the network does not reach it"),
        (OSError(errno.EACCES, "Permission denied"), "tcp", "Permission denied"),
        (ssl.SSLError(1, "[SSL] WRONG_VERSION_NUMBER"), "tls", "TLS failed"),
    ],
)
def test_a_failed_connection_says_where_what_and_what_to_do(error, stage, words):
    told = explain_connect(error, WHERE, tls=False, timeout_s=3)
    assert told.stage == stage
    assert str(told).startswith(f"broker {WHERE}: {words}")


def test_a_handshake_that_gets_no_answer_is_no_tls_port():
    told = explain_connect(ConnectionResetError(), WHERE, tls=True, timeout_s=3)
    assert (told.stage, told.reason) == ("tls", "does not answer in TLS")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "not valid yet"),
        (10, "expired"),
        (18, "not signed by a CA"),
        (20, "not signed by a CA"),
        (62, "another name"),
        (23, "revoked"),
    ],
)
def test_verification_failures_are_told_apart(code, words):
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "certificate revoked"
    assert words in explain_tls(error)[0]


@pytest.mark.parametrize("code", [0x81, 0x84])
def test_only_a_refused_version_asks_for_an_older_one(code):
    assert explain_connack(code, "", WHERE).version == "refused"
    assert explain_connack(0x86, "", WHERE).version == "no matter"


def test_unknown_codes_keep_the_brokers_words():
    assert "Odd thing" in str(explain_connack(0xEE, "Odd thing", WHERE))
    assert "Odd thing" in str(explain_disconnect(0xEE, "Odd thing", WHERE))


def test_a_session_taken_over_names_the_cause():
    assert "give each device its own device.id" in str(explain_disconnect(0x8E, "", WHERE))
    assert "device.id" in str(explain_loss(None, WHERE))


def test_silence_before_the_answer_hints_at_tls_only_without_it():
    assert "mqtt.tls" in explain_silence(None, WHERE, tls=False).hint
    assert explain_silence(None, WHERE, tls=True).hint == ""
    assert explain_silence(None, WHERE, tls=True).version == "doubtful"
    assert explain_silence(ssl.SSLEOFError(), WHERE, tls=True).version == "no matter"


def test_a_broker_that_went_silent_is_told():
    assert "does not answer any more" in str(explain_loss(None, WHERE, silent=True))
