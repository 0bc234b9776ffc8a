"""What the doctor says of weights, of what is computed in, and of the plan."""

import pytest

from agent.doctor_weights import check_offers, check_plan, check_precision, check_weights
from engines.graphfacts import WeightFacts


def only(findings):
    (finding,) = findings
    return finding


def test_sound_weights_are_in_order():
    finding = only(check_weights(WeightFacts(values=1000, fp16_subnormal=3), "fp32", "auto"))
    assert finding.status == "ok"
    assert finding.what == "1000 fp32 weights, all finite, 3 subnormal in fp16"


@pytest.mark.parametrize(
    ("facts", "asked", "status", "words"),
    [
        ({"not_finite": 2, "first_bad": "w7"}, "auto", "fail", "NaN or infinite weights: 2, the"),
        (
            {"dead": 5, "channels": 50, "dead_layers": ("a", "b")},
            "auto",
            "warn",
            "5 of 50 output channels have weights that are all 0 (most in a, b)",
        ),
        ({"fp16_overflow": 1}, "auto", "warn", "1 weights are above 65504"),
        ({"fp16_overflow": 1}, "fp16", "fail", "1 weights are above 65504"),
        ({"fp16_vanish": 20}, "fp16", "warn", "2.0% of the weights become 0 in fp16"),
        ({"subnormal": 9}, "fp32", "warn", "9 weights are subnormal"),
    ],
)
def test_faults_of_weights_are_told(facts, asked, status, words):
    finding = only(check_weights(WeightFacts(values=1000, **facts), "fp32", asked))
    assert (finding.status, words in finding.what) == (status, True)
    assert finding.fix


def test_what_fp16_cannot_hold_does_not_matter_to_fp32():
    facts = WeightFacts(values=1000, fp16_overflow=5, fp16_vanish=500)
    assert only(check_weights(facts, "fp32", "fp32")).status == "ok"


CPU = {"backend": "onnxruntime", "precision": "fp32"}


@pytest.mark.parametrize(
    ("stored", "asked", "runs", "features", "words"),
    [
        ("fp16", "auto", CPU, {"avx2"}, "does not compute in fp16"),
        ("int8", "auto", {**CPU, "precision": "int8"}, {"avx2"}, "no instructions for it (VNNI"),
        ("fp32", "int8", CPU, {"avx512_vnni"}, "though int8 is asked for"),
    ],
)
def test_a_precision_that_the_machine_does_not_compute_in_is_told(
    stored, asked, runs, features, words
):
    finding = only(check_precision(stored, asked, runs, features))
    assert (finding.status, words in finding.what) == ("warn", True)


@pytest.mark.parametrize(
    ("stored", "asked", "runs", "features"),
    [
        ("fp32", "auto", CPU, set()),
        ("fp32", "fp32", CPU, set()),
        ("int8", "auto", {**CPU, "precision": "int8"}, {"avx512_vnni"}),
        ("int8", "auto", {**CPU, "precision": "int8"}, {"asimddp"}),
        ("fp16", "auto", {"backend": "tensorrt", "precision": "fp16"}, {"asimd"}),
    ],
)
def test_a_precision_that_it_computes_in_is_in_order(stored, asked, runs, features):
    assert only(check_precision(stored, asked, runs, features)).status == "ok"


def test_an_unused_gpu_is_a_failure():
    offers = {"onnxruntime": ("fp32", "int8")}
    finding = only(check_offers(offers, {"tensorrt": "not installed"}, {"asimd"}, gpu=True))
    assert (finding.status, finding.what) == ("fail", "the GPU is not used: not installed")
    assert only(check_offers({**offers, "tensorrt": ("fp16",)}, {}, (), gpu=True)).status == "ok"


def test_amx_without_openvino_is_a_pity():
    offers = {"onnxruntime": ("fp32", "int8")}
    assert only(check_offers(offers, {}, {"amx_bf16"}, gpu=False)).status == "warn"
    finding = only(check_offers({**offers, "openvino": ("bf16",)}, {}, {"amx_bf16"}, gpu=False))
    assert finding.what == "onnxruntime: fp32, int8; openvino: bf16 (processor: amx_bf16)"


@pytest.mark.parametrize(
    ("there", "wanted", "others", "status", "words"),
    [
        (True, True, 1, "ok", "built for this model"),
        (False, False, 0, "ok", "nothing to choose from"),
        (False, True, 0, "warn", "no engine has been built"),
        (False, True, 2, "warn", "2 engines of this name are in the cache, but none for this file"),
    ],
)
def test_the_state_of_the_plan_is_told(there, wanted, others, status, words):
    finding = only(check_plan(there=there, wanted=wanted, others=others, serves="fp32 on x"))
    assert (finding.status, words in finding.what) == (status, True)
