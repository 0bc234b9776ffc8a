"""What is tried, what falls and why, and what is taken: on engines whose speed a test decides."""

import numpy as np
import pytest

from engines.backend import Attempt, Options, Product
from engines.compare import Verdict
from engines.errors import BackendError, BuildError, InferenceError
from engines.race import RaceResult, Timing
from engines.selection import MAX_REPAIRS, Policy, Selector, candidates, needed_ratio
from tests.fakes.engine import FakeEngine
from tests.fakes.model import loaded

INFO = loaded().info
ALL = ("onnxruntime", "openvino", "tensorrt")
EVERY = ("fp32", "bf16", "fp16", "int8")
HEAD = frozenset({"head"})


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Times follow from the engines' costs; the real race has tests of its own."""

    def timing(engine, batch):
        engine.create_context(batch).close()
        return Timing(*[float(engine.cost)] * 3)

    def race(first, second, batch):
        a, b = timing(first, batch), timing(second, batch)
        return RaceResult(a, b, a.p50_ms / b.p50_ms)

    monkeypatch.setattr("engines.selection.race", race)
    monkeypatch.setattr("engines.selection.solo", timing)


class FakeBackend:
    """Implements `engines.backend.Backend`; `costs` is the work of one inference by precision."""

    def __init__(self, name, costs, *, lies=(), refuses=()):
        self.name = name
        self.costs = costs
        self.lies = lies
        self.refuses = refuses
        self.made = []
        self.engines = []

    def why_not(self):
        return ""

    def offers(self):
        return tuple(self.costs)

    def fingerprint(self):
        return {"version": "1"}

    def build(self, source, recipe, options, tell):
        if recipe.precision in self.refuses:
            raise BuildError(f"{self.name} cannot")
        self.made.append(recipe)
        return Product(recipe.precision.encode(), "route", (Attempt("route"),))

    def load(self, blob, info, options):
        precision = blob.decode()
        engine = FakeEngine(lambda images: np.zeros((len(images), 6, 8), np.float32))
        engine.cost = self.costs[precision]
        engine.backend = self.name
        engine.precision = "fp32" if precision in self.lies else precision
        self.engines.append(engine)
        return engine


def fine(engine, precision):
    return Verdict(passed=True, figures={"seen": precision}, reasons=())


def select(backends, *, judge=fine, worst=lambda nodes: [], keep_float="head", **policy):
    reference = FakeBackend("onnxruntime", {"fp32": 40}).load(b"fp32", INFO, Options())
    selector = Selector(
        info=INFO,
        backends=backends,
        policy=Policy(
            policy.get("names", ALL), policy.get("precisions", EVERY), keep_float, min_speedup=1.05
        ),
        options=Options(),
        reference=reference,
        judge=judge,
        head=lambda: HEAD,
        worst=worst,
        build=lambda backend, recipe: backend.build(None, recipe, Options(), None),
        tell=lambda progress: None,
    )
    try:
        return selector.select()
    finally:
        # The reference is whoever's lent it: open, and without a context of ours.
        assert not reference.closed
        assert reference.open_contexts == 0
        for engine in (e for b in backends for e in b.engines):
            assert engine.closed


def reasons(selection):
    return {row.name: row.reason for row in selection.rows}


def test_fastest_that_passes_is_taken():
    ort = FakeBackend("onnxruntime", {"fp32": 40, "int8": 10})
    found = select([ort, FakeBackend("openvino", {"fp32": 30, "bf16": 20})])
    assert (found.chosen.backend, found.chosen.precision) == ("onnxruntime", "int8")
    assert found.product.blob == b"int8"
    assert found.chosen.speedup == 4
    assert [row.name for row in found.rows if not row.reason] == ["int8 on onnxruntime"]
    assert len(found.rows) == 4


def test_reference_wins_where_nothing_is_faster():
    found = select([FakeBackend("onnxruntime", {"fp32": 40, "int8": 80})])
    assert (found.chosen.precision, found.chosen.speedup) == ("fp32", 1.0)
    assert "is needed" in reasons(found)["int8 on onnxruntime"]


def test_wrong_engine_falls_however_fast():
    def judge(engine, precision):
        return Verdict(precision != "bf16", {}, ("cosine 0.4 is below 0.999",))

    found = select(
        [FakeBackend("onnxruntime", {"fp32": 40}), FakeBackend("openvino", {"bf16": 1})],
        judge=judge,
    )
    assert found.chosen.precision == "fp32"
    assert reasons(found)["bf16 on openvino"] == "cosine 0.4 is below 0.999"


def test_engine_that_computes_in_another_precision_falls():
    found = select(
        [
            FakeBackend("onnxruntime", {"fp32": 40}),
            FakeBackend("tensorrt", {"fp16": 1}, lies={"fp16"}),
        ]
    )
    assert found.chosen.precision == "fp32"
    assert "asked tensorrt for fp16, got fp32" in reasons(found)["fp16 on tensorrt"]


def test_backend_that_cannot_build_falls_with_its_reason():
    found = select(
        [
            FakeBackend("onnxruntime", {"fp32": 40}),
            FakeBackend("tensorrt", {"fp16": 1}, refuses={"fp16"}),
        ]
    )
    assert reasons(found)["fp16 on tensorrt"] == "tensorrt cannot"


def test_engine_that_fails_while_it_is_judged_or_timed_falls():
    ort = FakeBackend("onnxruntime", {"fp32": 40})
    openvino = FakeBackend("openvino", {"fp32": 1, "bf16": 1})

    def judge(engine, precision):
        if precision == "bf16":
            raise InferenceError("out of memory")
        engine.create_context = broken
        return fine(engine, precision)

    def broken(batch):
        raise InferenceError("no buffers")

    found = select([ort, openvino], judge=judge)
    assert reasons(found)["bf16 on openvino"] == "out of memory"
    assert reasons(found)["fp32 on openvino"] == "no buffers"


def test_nothing_that_can_be_taken_is_an_error_that_names_all():
    def judge(engine, precision):
        return Verdict(False, {}, ("boxes kept 0.2 is below 0.9",))

    with pytest.raises(BuildError, match=r"int8 on onnxruntime: boxes kept 0.2 is below 0.9"):
        select([FakeBackend("onnxruntime", {"int8": 1})], judge=judge, precisions=("int8",))


def test_nothing_to_try_is_an_error_that_says_what_to_do():
    with pytest.raises(BuildError, match="set precision: auto"):
        select([FakeBackend("onnxruntime", {"fp32": 1})], precisions=("fp16",))


def test_int8_that_fails_is_repaired_worst_layers_first():
    backend = FakeBackend("onnxruntime", {"fp32": 40, "int8": 5})

    def judge(engine, precision):
        good = {"head", "a", "b"} <= backend.made[-1].float_nodes
        return Verdict(good, {}, () if good else ("boxes kept 0.5",))

    found = select(
        [backend],
        judge=judge,
        worst=lambda nodes: [frozenset("a"), frozenset({"b", "head"}), frozenset("c")],
    )
    assert found.chosen.precision == "int8"
    assert [r.float_nodes for r in backend.made if r.precision == "int8"] == [
        HEAD,
        HEAD | {"a"},
        HEAD | {"a", "b"},
    ]
    assert len(found.chosen.repairs) == 2


def test_head_is_the_first_repair_of_an_engine_quantised_whole():
    backend = FakeBackend("onnxruntime", {"fp32": 40, "int8": 5})

    def judge(engine, precision):
        good = "head" in backend.made[-1].float_nodes
        return Verdict(good, {}, () if good else ("all scores are 0",))

    found = select([backend], judge=judge, keep_float="none")
    assert [r.float_nodes for r in backend.made if r.precision == "int8"] == [frozenset(), HEAD]
    assert found.chosen.repairs == ("all scores are 0: 1 more layers in floating point",)


def test_repairs_end():
    backend = FakeBackend("onnxruntime", {"fp32": 40, "int8": 5})
    found = select(
        [backend],
        judge=lambda engine, precision: Verdict(False, {}, ("no",)),
        worst=lambda nodes: [frozenset({str(n)}) for n in range(100)],
    )
    assert found.chosen.precision == "fp32"
    assert sum(r.precision == "int8" for r in backend.made) == MAX_REPAIRS + 1
    assert len(next(r for r in found.rows if r.precision == "int8").repairs) == MAX_REPAIRS


def test_loading_that_fails_is_a_reason():
    class Unloadable(FakeBackend):
        def load(self, blob, info, options):
            raise BackendError("memory is short")

    found = select([FakeBackend("onnxruntime", {"fp32": 9}), Unloadable("openvino", {"fp32": 1})])
    assert reasons(found)["fp32 on openvino"] == "memory is short"


def test_floating_point_of_every_backend_is_tried_before_int8_of_any():
    backends = [
        FakeBackend("onnxruntime", {"fp32": 1, "int8": 1}),
        FakeBackend("tensorrt", {"fp32": 1, "fp16": 1, "int8": 1}),
    ]
    tried = [(b.name, p) for b, p in candidates(backends, Policy(ALL, EVERY))]
    assert tried == [
        ("onnxruntime", "fp32"),
        ("tensorrt", "fp32"),
        ("tensorrt", "fp16"),
        ("onnxruntime", "int8"),
        ("tensorrt", "int8"),
    ]


@pytest.mark.parametrize(
    ("champion", "challenger", "needed"),
    [("fp16", "int8", 1.05), ("int8", "int8", 1.0), ("fp32", "fp16", 1.0)],
)
def test_int8_must_beat_floating_point_by_a_margin(champion, challenger, needed):
    assert needed_ratio(champion, challenger, Policy(ALL, EVERY, min_speedup=1.05)) == needed
