"""What are the weights, and what will really be computed with on this machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.check import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from engines.graphfacts import WeightFacts

INT8_FEATURES = frozenset(
    {"avx512_vnni", "avx_vnni", "amx_int8", "avx_vnni_int8", "asimddp", "i8mm"}
)
"""Instruction sets that multiply bytes, by the names of /proc/cpuinfo: VNNI and AMX of x86; dot
product and matrix multiplication of ARM."""

SHOWN_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Those that matter to the speed of a network, for people."""

VANISHING_SHARE = 0.001
"""More of the weights than this lost in float16, and somebody will notice."""

DEAD_SHARE = 0.02
"""A network trained from scratch has few dead channels; more is a pruned or a broken one."""

SUBNORMAL_SHARE = 0.0001


def check_weights(facts: WeightFacts, precision: str, asked: str) -> Iterator[Finding]:
    """Values that no precision, or not this one, can compute with.

    Args:
        facts: of the file.
        precision: of the file's weights.
        asked: precision that is configured.
    """
    name = "accuracy.weights"
    sound = True
    if facts.not_finite:
        sound = False
        yield Finding(
            name,
            "fail",
            f"NaN or infinite weights: {facts.not_finite}, the first in {facts.first_bad!r}",
            "the training diverged or the file is damaged: export it again from a good checkpoint",
        )
    if facts.channels and facts.dead / facts.channels > DEAD_SHARE:
        sound = False
        layers = ", ".join(facts.dead_layers[:3])
        yield Finding(
            name,
            "warn",
            f"{facts.dead} of {facts.channels} output channels have weights that are all 0 "
            f"(most in {layers})",
            "a pruned model? Remove them for speed. Else the export lost weights",
        )
    if facts.subnormal > SUBNORMAL_SHARE * facts.values:
        sound = False
        yield Finding(
            "speed.denormals",
            "warn",
            f"{facts.subnormal} weights are subnormal: smaller than float32's smallest normal "
            "number, and many times slower to multiply with on some processors",
            "set weights below 1e-30 to 0 when exporting",
        )
    half = asked in ("fp16", "auto") or precision == "fp16"
    if half and facts.fp16_overflow:
        sound = False
        yield Finding(
            name,
            "fail" if asked == "fp16" else "warn",
            f"{facts.fp16_overflow} weights are above 65504 and become infinite in fp16",
            "use fp32, bf16 or int8 for this model",
        )
    if half and facts.fp16_vanish > VANISHING_SHARE * facts.values:
        sound = False
        yield Finding(
            name,
            "warn",
            f"{facts.fp16_vanish / facts.values:.1%} of the weights become 0 in fp16",
            "weights so small often come from a missing /255; serve fp32 or bf16",
        )
    if sound:
        small = f", {facts.fp16_subnormal} subnormal in fp16" if facts.fp16_subnormal else ""
        yield Finding(name, "ok", f"{facts.values} {precision} weights, all finite{small}")


def check_precision(
    precision: str,
    asked: str,
    runs: Mapping[str, str],
    features: Collection[str],
) -> Iterator[Finding]:
    """What is stored, what is asked for, and what is run.

    Args:
        precision: of the file's weights.
        asked: precision that is configured.
        runs: `backend` and `precision` of the engine that would serve now.
        features: instruction sets of the processor.
    """
    name = "speed.precision"
    on_cpu = runs["backend"] in ("onnxruntime", "openvino")
    what = f"the file is {precision}; {runs['precision']} on {runs['backend']} would serve now"
    if precision == "fp16" and on_cpu and not {"avx512_fp16", "amx_fp16"}.intersection(features):
        yield Finding(
            name,
            "warn",
            f"{what}: this processor does not compute in fp16, so every layer is converted",
            "export the model in fp32; the agent makes fp16 of it where that is faster",
        )
    elif precision == "int8" and on_cpu and not INT8_FEATURES.intersection(features):
        yield Finding(
            name,
            "warn",
            f"{what}: this processor has no instructions for it (VNNI, AMX; ARM: dot product)",
            "serve fp32 on this machine",
        )
    elif asked not in ("auto", runs["precision"]):
        yield Finding(
            name,
            "warn",
            f"{what}, though {asked} is asked for",
            "build it: vigia engine build; it says why if it cannot",
        )
    else:
        yield Finding(name, "ok", what)


def check_offers(
    offers: Mapping[str, Collection[str]],
    missing: Mapping[str, str],
    features: Collection[str],
    *,
    gpu: bool,
) -> Iterator[Finding]:
    """What could be run on this machine.

    Args:
        offers: precisions by backend.
        missing: why other backends cannot be used.
        features: instruction sets of the processor.
        gpu: whether the board has an NVIDIA GPU.
    """
    name = "speed.backends"
    there = "; ".join(f"{backend}: {', '.join(ways)}" for backend, ways in offers.items())
    known = " ".join(feature for feature in SHOWN_FEATURES if feature in features)
    what = f"{there} (processor: {known or 'no instruction sets known'})"
    if gpu and "tensorrt" not in offers:
        yield Finding(
            name,
            "fail",
            f"the GPU is not used: {missing.get('tensorrt', 'TensorRT is not here')}",
            "install JetPack's TensorRT and create the environment with --system-site-packages",
        )
    elif {"amx_bf16", "amx_int8"}.intersection(features) and "openvino" not in offers:
        yield Finding(
            name,
            "warn",
            f"{what}; this processor has AMX, which OpenVINO uses best",
            "pip install 'vigia-agent[openvino]'",
        )
    else:
        yield Finding(name, "ok", what)


def check_plan(*, there: bool, wanted: bool, others: int, serves: str) -> Iterator[Finding]:
    """Whether an engine was built for exactly this model, these settings and this machine.

    Args:
        there: it is in the cache.
        wanted: a build could choose anything else than what serves without it.
        others: engines of a model of this name in the cache.
        serves: what serves now.
    """
    name = "speed.plan"
    if there:
        yield Finding(
            name, "ok", f"built for this model, these settings and this machine: {serves}"
        )
    elif not wanted:
        yield Finding(name, "ok", f"{serves} serves; there is nothing to choose from here")
    elif others:
        yield Finding(
            name,
            "warn",
            f"{serves} serves: {others} engines of this name are in the cache, but none for this "
            "file, these settings, libraries and machine: one of them has changed",
            "vigia engine build, with the same settings",
        )
    else:
        yield Finding(
            name,
            "warn",
            f"{serves} serves: no engine has been built for this model, or not with these settings",
            "vigia engine build, with the same settings",
        )
