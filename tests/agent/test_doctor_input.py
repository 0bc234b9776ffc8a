"""Scale and range of what a network sees, and which preparation it answers best to."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from agent.doctor_input import check_parity, check_seen, check_steps
from agent.doctor_variants import (
    CONFIGURED,
    PLAIN,
    Looker,
    Suit,
    check_variants,
    try_variants,
    variants,
)
from agent.enginepictures import read_pictures
from agent.vision.decode import Decoder, PostprocessSettings
from engines.describe import describe
from engines.graphfacts import InputSteps
from engines.orttensors import PlainModel, feed
from tests.engines.graphs import info
from tests.vectors import faults

BYTES = (1 / 255,) * 3


@pytest.mark.parametrize(
    ("steps", "changes", "status", "words"),
    [
        (InputSteps(), {}, "ok", "all of it done by the agent"),
        (InputSteps(scales=("Div d by 255",)), {}, "fail", "scaled twice: the graph has a Div d"),
        (InputSteps(scales=("Div d by 255",)), {"std": BYTES}, "ok", "in the graph: Div d by 255"),
        (InputSteps(scales=("Div d by 255", "Mul m by 255")), {"std": BYTES}, "fail", "inside"),
        (InputSteps(shifts=("Sub s",)), {}, "ok", "in the graph: Sub s"),
        (InputSteps(shifts=("Sub s",)), {"mean": (0.5,) * 3}, "fail", "normalised twice"),
        (InputSteps(swaps=("Gather g",)), {}, "ok", "in the graph: Gather g"),
    ],
)
def test_scaling_by_graph_and_agent_together_is_judged(steps, changes, status, words):
    (finding,) = check_steps(steps, replace(info(), **changes))
    assert (finding.status, words in finding.what) == (status, True)


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0, 1, "ok"),
        (-2.1, 2.6, "ok"),
        (0, 255, "ok"),
        (0, 0.0039, "warn"),
        (0, 60, "warn"),
    ],
)
def test_the_range_that_a_network_sees_is_judged(low, high, status):
    values = np.full((1, 3, 2, 2), low, np.float32)
    values[..., 0] = high
    (finding,) = check_seen(values)
    assert finding.status == status
    assert finding.what.startswith(f"the network sees {low:.3g} to {high:.3g}")


@pytest.mark.parametrize(("levels", "status"), [(0.8, "ok"), (2.0, "warn"), (40.0, "fail")])
def test_differences_of_resizing_are_judged(levels, status):
    (finding,) = check_parity(levels)
    assert finding.status == status


@pytest.fixture(scope="module")
def pictures():
    return read_pictures(faults.SAMPLE, 3)


def agreements(fault, pictures, **changes):
    model = onnx.load(faults.MODEL)
    if fault is not None:
        model = fault(model)
    described = replace(describe(faults.MODEL), **changes)
    plain = PlainModel(model)
    return try_variants(
        lambda image: plain.run(feed(model, described.input.name, image)),
        Decoder(described, PostprocessSettings()),
        described,
        pictures,
    )


def test_a_right_model_is_left_alone(pictures):
    found = agreements(None, pictures)
    assert found[CONFIGURED] == found[PLAIN]
    assert found[PLAIN].share > 0.9
    (finding,) = check_variants(found)
    assert finding.status == "ok"


@pytest.mark.parametrize(
    ("fault", "words", "fix"),
    [
        (faults.wants_bytes, "RGB 0..255, not scaled", "models.<slot>.std: [0.00392157"),
        (faults.divides, "RGB 0..255, not scaled", "models.<slot>.std: [0.00392157"),
    ],
)
def test_a_model_of_another_scale_is_found_out(fault, words, fix, pictures):
    (finding,) = check_variants(agreements(fault, pictures))
    assert finding.status == "fail"
    assert words in finding.what
    assert fix in finding.fix


def test_a_model_for_swapped_channels_answers_best_to_them(pictures):
    found = agreements(faults.swapped_channels, pictures)
    best = max(found, key=lambda name: found[name].share)
    assert best == "BGR 0..1, channels swapped"


@pytest.mark.parametrize(
    ("mine", "theirs", "status"),
    [
        # One object of thirty is chance, thirteen of a hundred and sixty are not.
        (Suit(0.97, 32), Suit(1.0, 32), "ok"),
        (Suit(0.92, 160), Suit(0.99, 160), "warn"),
        (Suit(0.94, 160), Suit(0.97, 160), "ok"),
        (Suit(0.0, 0), Suit(0.97, 32), "fail"),
        (Suit(0.0, 0), Suit(1.0, 2), "warn"),
        (Suit(0.0, 0), Suit(0.0, 0), "warn"),
    ],
)
def test_better_by_chance_is_not_better(mine, theirs, status):
    suits = {variant.name: Suit(0.0, 0) for variant in variants()}
    suits |= {CONFIGURED: mine, PLAIN: mine, "BGR 0..1, channels swapped": theirs}
    (finding,) = check_variants(suits)
    assert finding.status == status


def test_the_fix_that_is_proposed_is_one(pictures):
    found = agreements(faults.wants_bytes, pictures, std=(0.00392157,) * 3)
    assert found[CONFIGURED].share > 0.9
    (finding,) = check_variants(found)
    assert finding.status == "ok"


@pytest.mark.parametrize("level", [0, 200])
def test_pictures_of_nothing_are_no_proof_against_the_input(level):
    empty = [np.full((48, 64, 3), level, np.uint8)] * 2
    (finding,) = check_variants(agreements(None, empty))
    assert finding.status == "warn"
    assert finding.what.startswith("hardly anything is found")


def test_noise_is_no_proof_against_the_input():
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(3)]
    (finding,) = check_variants(agreements(None, noise))
    assert finding.status != "fail"


def test_trying_ends_when_the_time_is_over(pictures):
    ticks = iter(range(0, 1000, 100))
    calls = []

    def run(image):
        calls.append(image.shape)
        return {"output0": np.zeros((1, 8, 2100), np.float32)}

    described = describe(faults.MODEL)
    decoder = Decoder(described, PostprocessSettings())
    try_variants(run, decoder, described, pictures * 4, clock=lambda: next(ticks))
    assert len(calls) == (2 * 2 + 1) * len(variants())


def test_a_picture_and_its_mirror_image_agree_for_a_model_that_is_right(pictures):
    model = onnx.load(faults.MODEL)
    described = describe(faults.MODEL)
    plain = PlainModel(model)
    looker = Looker(
        lambda image: plain.run(feed(model, described.input.name, image)),
        Decoder(described, PostprocessSettings()),
        described,
        pictures[0],
    )
    agreement, found = looker.agreement(lambda image: image)
    assert agreement > 0.8
    assert found > looker.count(lambda image: image) > 3
