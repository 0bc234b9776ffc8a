import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.topics import FleetTopics
from agent.wire.updaterequest import UpdateRequest, encode_update_request
from fleet.allowance import Allowances
from fleet.answering import BLOCKS_BURST, MAX_WAITING, REPEAT_S, REQUESTS_BURST, Answers
from fleet.bundlefiles import BundleFiles
from tests.vectors.bundles import make_bundle

TOPICS = FleetTopics("p")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder, {"model.onnx": bytes(500_000)})
    return BundleFiles(folder)


@pytest.fixture
def answers(bundle):
    return Answers(TOPICS, {bundle.id: bundle}, ("d", "e"))


class Endless:
    """A bundle of as many blocks as a test likes, without any."""

    blocks = 2**20
    manifest_bytes = b"m"

    def index(self):
        return b"i"

    def block(self, number):
        return b"%d" % number


def ask(answers, device="d", now=0.0, bundle=None, **want):
    payload = encode_update_request(UpdateRequest(bundle or "0" * 32, **want), device=device)
    answers.ask(device, payload, now)


def sent(answers, now=0.0):
    return list(answers.messages(10**9, now))


def test_what_is_asked_for_is_published_as_it_is(answers, bundle):
    ask(answers, bundle=bundle.id, manifest=True, index=True, blocks=((1, 2), (5, 5)))
    assert sent(answers) == [
        (TOPICS.manifest(bundle.id), bundle.manifest_bytes),
        (TOPICS.index(bundle.id), bundle.index()),
        *((TOPICS.block(bundle.id, n), bundle.block(n)) for n in (1, 2, 5)),
    ]


def test_blocks_beyond_the_bundle_are_not_there(answers, bundle):
    ask(answers, bundle=bundle.id, blocks=((bundle.blocks - 1, 2**32 - 1), (10**6, 10**7)))
    assert len(sent(answers)) == 1


def test_what_many_ask_for_is_sent_once(answers, bundle):
    ask(answers, "d", bundle=bundle.id, blocks=((0, 3),))
    ask(answers, "e", bundle=bundle.id, blocks=((2, 5),))
    assert len(sent(answers)) == 6
    ask(answers, "e", now=REPEAT_S - 0.1, bundle=bundle.id, blocks=((0, 5),))
    assert sent(answers, REPEAT_S) == []
    ask(answers, "e", now=REPEAT_S, bundle=bundle.id, blocks=((0, 5),))
    assert len(sent(answers, REPEAT_S)) == 6


def test_strangers_and_bundles_that_are_not_here_get_nothing(answers, bundle):
    ask(answers, "stranger", bundle=bundle.id, manifest=True)
    ask(answers, "d", bundle="f" * 32, manifest=True)
    answers.ask("d", encode_update_request(UpdateRequest(bundle.id, True), device="e"), 0.0)
    assert sent(answers) == []
    assert answers.counts == {"of strangers": 1, "of no bundle here": 2}


def test_a_flood_of_requests_of_one_device_is_bounded_and_keeps_nobody_else_waiting(
    answers, bundle
):
    for _ in range(10_000):
        ask(answers, "d", bundle=bundle.id, blocks=((0, 5),))
    assert answers.counts["taken"] == REQUESTS_BURST
    assert answers.counts["too soon"] == 10_000 - REQUESTS_BURST
    assert answers.waiting == 6
    ask(answers, "e", bundle=bundle.id, manifest=True)
    assert answers.waiting == 7


def test_one_request_for_everything_is_bounded():
    answers = Answers(TOPICS, {"0" * 32: Endless()}, ("d",))
    ask(answers, blocks=((0, 2**32 - 1),) * 256)
    assert answers.waiting == BLOCKS_BURST


def test_all_devices_together_are_bounded():
    devices = [f"d{n}" for n in range(50)]
    answers = Answers(TOPICS, {"0" * 32: Endless()}, devices)
    for number, device in enumerate(devices):
        ask(answers, device, blocks=((number * 4096, number * 4096 + 4095),))
    assert answers.waiting == MAX_WAITING
    assert answers.counts["too many"] == 50 * 4096 - MAX_WAITING
    assert len(list(answers.messages(100, 0.0))) == 100


@given(st.binary(max_size=300))
def test_garbage_is_counted(bundle, payload):
    answers = Answers(TOPICS, {bundle.id: bundle}, ("d",))
    answers.ask("d", payload, 0.0)
    assert answers.counts == {"garbage": 1}


class TestAllowances:
    def test_a_burst_then_the_rate(self):
        allowances = Allowances(rate=2.0, burst=5)
        assert allowances.take("d", 10, 0.0) == 5
        assert allowances.take("d", 1, 0.4) == 0
        assert allowances.take("d", 1, 0.5) == 1
        assert allowances.take("d", 100, 1000.0) == 5

    def test_each_has_its_own(self):
        allowances = Allowances(rate=1.0, burst=1)
        assert allowances.take("d", 1, 0.0) == 1
        assert allowances.take("e", 1, 0.0) == 1

    @given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 20))))
    def test_never_more_than_burst_and_rate_allow(self, steps):
        allowances = Allowances(rate=2.0, burst=5)
        now = latest = 0.0
        given = 0
        for step, wanted in steps:
            now += step
            given += allowances.take("d", wanted, now)
            latest += max(step, 0.0)
        assert given <= 5 + 2.0 * latest + 1e-6
