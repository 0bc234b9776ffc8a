"""Thresholds beside scores, and the time that decoding takes."""

import pytest

from agent.doctor_answers import AnswerFacts, check_answers, check_decode


def facts(best, counts, low=(), decode_ms=0.5, infer_ms=10.0):
    return AnswerFacts(tuple(best), tuple(counts), tuple(low), decode_ms, infer_ms)


@pytest.mark.parametrize(
    ("best", "counts", "status", "words"),
    [
        ((0.9, 0.8), (3, 4), "ok", "3.5 objects a picture, none in 0 of 2; best score 0.90"),
        ((0.9, 0.0), (3, 0), "ok", "none in 1 of 2"),
        ((0.2, 0.1), (0, 0), "warn", "nothing is found in any of 2 pictures, but nearly"),
        ((0.01, 0.0), (0, 0), "fail", "nothing is found in any of 2 pictures: best score 0.01"),
        ((1.0, 1.0), (300, 300), "fail", "the limit of 300 objects is reached in 100%"),
        ((1.0, 1.0), (150, 120), "warn", "135 objects a picture on average"),
    ],
)
def test_the_threshold_is_judged_by_the_scores(best, counts, status, words):
    (finding,) = check_answers(facts(best, counts, counts), 0.25, 300)
    assert (finding.status, words in finding.what) == (status, True)
    assert bool(finding.fix) == (status != "ok")


def test_a_lower_threshold_is_proposed_that_would_find_the_best():
    (finding,) = check_answers(facts((0.2,), (0,)), 0.25, 300)
    assert finding.fix == "try models.<slot>.confidence: 0.14"


def test_slow_decoding_is_told():
    (finding,) = check_decode(facts((), (), decode_ms=4.0))
    assert (finding.status, finding.name) == ("warn", "speed.decode")
    assert "decoding takes 4.00 ms, 40% of an inference's 10.00 ms" in finding.what
    (finding,) = check_decode(facts((), (), decode_ms=0.4))
    assert finding.status == "ok"
