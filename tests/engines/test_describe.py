from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.describe import Overrides, describe
from engines.errors import UnsupportedModelError
from engines.model import Layout, Resize, Task
from tests.vectors.models import make_model

KINDS = [
    ("detect", "yolo"),
    ("detect", "yolo-anchor"),
    ("detect", "end2end"),
    ("detect", "detr"),
    ("segment", "yolo"),
    ("segment", "end2end"),
    ("pose", "yolo"),
    ("pose", "end2end"),
    ("obb", "yolo"),
    ("obb", "end2end"),
    ("classify", "classes"),
]
VARIANTS = {
    "fixed": {},
    "batch of 4": {"batch": 4},
    "dynamic batch": {"batch": "dynamic"},
    "dynamic": {"batch": "dynamic", "dynamic_size": True},
    "undeclared": {"declared": False, "batch": "dynamic", "dynamic_size": True},
    "half": {"half": True},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(("task", "layout"), KINDS)
def test_exporters_metadata_tells_everything(tmp_path, task, layout, variant):
    path = make_model(tmp_path / "m.onnx", task, layout, size=(96, 64), **variant)
    info = describe(path)
    assert (info.task, info.layout) == (Task(task), Layout(layout))
    assert info.names == ("thing0", "thing1", "thing2")
    assert (info.width, info.height) == (96, 64)
    assert info.max_batch == {4: 4, "dynamic": None}.get(variant.get("batch"), 1)
    assert info.keypoint_shape == ((5, 3) if task == "pose" else None)
    assert info.precision == ("fp16" if variant.get("half") else "fp32")
    assert info.inferred == ()
    assert not info.logits


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(("task", "layout"), KINDS)
def test_described_shapes_are_those_the_runtime_gives(tmp_path, task, layout, variant):
    path = make_model(tmp_path / "m.onnx", task, layout, size=(96, 64), **variant)
    info = describe(path)
    session = onnxruntime.InferenceSession(str(path))
    shape = (info.max_batch or 3, 3, info.height, info.width)
    arrays = session.run(None, {info.input.name: np.full(shape, 0.5, info.input.dtype)})
    for spec, array in zip(info.outputs, arrays, strict=True):
        assert spec.dtype == array.dtype
        assert spec.shape[1:] == array.shape[1:]
        assert spec.shape[0] in (None, array.shape[0])


@pytest.mark.parametrize(("task", "layout"), KINDS)
def test_overrides_replace_the_metadata(tmp_path, task, layout):
    path = make_model(tmp_path / "m.onnx", task, layout, metadata=False)
    info = describe(
        path,
        Overrides(
            task=Task(task),
            layout=Layout(layout),
            names=("a", "b", "c"),
            resize=Resize.STRETCH,
            mean=(0.1, 0.2, 0.3),
            std=(0.5, 0.6, 0.7),
            name="mine",
        ),
    )
    assert (info.task, info.layout) == (Task(task), Layout(layout))
    assert (info.names, info.name, info.resize) == (("a", "b", "c"), "mine", Resize.STRETCH)
    assert (info.mean, info.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    if task != "pose":
        assert info.inferred == ()


@pytest.mark.parametrize(
    ("layout", "resize"),
    [
        ("yolo", "letterbox"),
        ("yolo-anchor", "letterbox"),
        ("end2end", "letterbox"),
        ("detr", "stretch"),
    ],
)
def test_detectors_resize(tmp_path, layout, resize):
    assert describe(make_model(tmp_path / "m.onnx", layout=layout)).resize == Resize(resize)


def test_classifiers_resize(tmp_path):
    info = describe(make_model(tmp_path / "m.onnx", "classify"))
    assert info.resize is Resize.CENTER_CROP


def test_digest_and_name_are_the_files(tmp_path):
    path = make_model(tmp_path / "belt-n.onnx")
    info = describe(path)
    assert info.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.name == "belt-n"


@pytest.mark.parametrize(
    ("task", "layout", "classes"),
    [
        ("detect", "yolo", 80),
        ("detect", "yolo-anchor", 80),
        ("detect", "detr", 10),
        ("segment", "yolo", 5),
        ("classify", "classes", 7),
    ],
)
def test_shapes_alone_suffice_and_it_is_said(tmp_path, task, layout, classes):
    path = make_model(
        tmp_path / "m.onnx", task, layout, nc=classes, metadata=False, size=(320, 256)
    )
    info = describe(path)
    assert (info.task, info.layout) == (Task(task), Layout(layout))
    assert info.names == tuple(f"class{i}" for i in range(classes))
    said = "; ".join(info.inferred)
    assert f"task: {task}" in said
    assert f"layout: {layout}" in said
    assert "names: invented" in said


def test_class_names_confirm_a_layout(tmp_path):
    path = make_model(tmp_path / "m.onnx", nc=80, metadata=False, size=320)
    info = describe(path, Overrides(names=tuple(f"n{i}" for i in range(80))))
    assert info.layout is Layout.YOLO
    assert [s.split(":")[0] for s in info.inferred] == ["task"]


@pytest.mark.parametrize(
    ("task", "layout", "nc", "said"),
    [
        ("detect", "end2end", 3, "layout end2end; or task detect with layout detr, 2 classes"),
        ("obb", "end2end", 3, "task obb with layout end2end; or task detect with layout detr"),
        ("pose", "yolo", 1, "detect with layout yolo, 52 classes; or task pose"),
        ("pose", "end2end", 1, "task pose with layout end2end, 17 keypoints of 3 values; or"),
    ],
)
def test_ambiguous_model_is_refused_with_the_choices(tmp_path, task, layout, nc, said):
    options = {"nc": nc, "keypoints": (17, 3), "size": 320, "candidates": 300}
    path = make_model(tmp_path / "m.onnx", task, layout, metadata=False, **options)
    with pytest.raises(UnsupportedModelError, match=said) as caught:
        describe(path)
    assert "models.<slot>." in str(caught.value)
    assert str(path) in str(caught.value)
    info = describe(path, Overrides(task=Task(task), layout=Layout(layout), names=("n",) * nc))
    assert (info.task, info.layout) == (Task(task), Layout(layout))


def test_class_names_settle_what_is_ambiguous(tmp_path):
    path = make_model(tmp_path / "m.onnx", layout="end2end", metadata=False)
    info = describe(path, Overrides(names=tuple("abcd")))
    assert info.layout is Layout.END2END


def test_two_classes_leave_end_to_end_and_detr_open_unless_the_metadata_tells(tmp_path):
    changes = {"end2end": None}
    path = make_model(tmp_path / "m.onnx", layout="end2end", nc=2, metadata=changes)
    with pytest.raises(UnsupportedModelError, match=r"Set models.<slot>.layout"):
        describe(path)
    path = make_model(tmp_path / "m.onnx", layout="end2end", nc=2)
    assert describe(path).layout is Layout.END2END
    path = make_model(tmp_path / "m.onnx", layout="detr", nc=2)
    assert describe(path).layout is Layout.DETR
    changes["args"] = "{'nms': True, 'batch': 1}"
    path = make_model(tmp_path / "m.onnx", layout="end2end", nc=2, metadata=changes)
    assert describe(path).layout is Layout.END2END


def test_end_to_end_model_without_names_asks_for_them(tmp_path):
    path = make_model(tmp_path / "m.onnx", "segment", "end2end", metadata=False)
    with pytest.raises(UnsupportedModelError, match=r"how many classes.*models.<slot>.names"):
        describe(path)


@pytest.mark.parametrize(("task", "layout"), [k for k in KINDS if k[1] != "end2end"])
@pytest.mark.parametrize("count", [2, 4])
def test_wrong_number_of_names_is_refused(tmp_path, task, layout, count):
    names = str([f"n{i}" for i in range(count)])
    path = make_model(tmp_path / "m.onnx", task, layout, metadata={"names": names})
    with pytest.raises(UnsupportedModelError, match=rf"has {count} class names.*3 classes"):
        describe(path)


@pytest.mark.parametrize(
    "names",
    [
        "['a', 'b', 'c']",
        "('a', 'b', 'c')",
        "{0: 'a', 1: 'b', 2: 'c'}",
        "{2: 'c', 0: 'a', 1: 'b'}",
        '{"0": "a", "1": "b", "2": "c"}',
    ],
)
def test_names_are_read_in_every_form(tmp_path, names):
    path = make_model(tmp_path / "m.onnx", metadata={"names": names})
    assert describe(path).names == ("a", "b", "c")


@pytest.mark.parametrize(
    "names",
    [
        "",
        "person",
        "5",
        "{0: 'a', 1: 'b', 3: 'c'}",
        "{0: 'a', 1: 'b', 2: 3}",
        "{'x': 'a', 1: 'b', 2: 'c'}",
        "[['a'], 'b', 'c']",
        "{0: 'a', 1: 'b', 2: __import__('os').system('true')}",
        "['a', 'b', 'c\\x1b[2J']",
        "[" * 5000,
        "{0: 'a', 0.0: 'b', True: 'c'}",
        "[]",
        f"['a', 'b', {'x' * 300!r}]",
        "'" + "x" * 5_000_000 + "'",
    ],
    ids=lambda text: text[:20],
)
def test_names_that_are_none_are_refused_and_can_be_overridden(tmp_path, names):
    path = make_model(tmp_path / "m.onnx", metadata={"names": names})
    with pytest.raises(UnsupportedModelError, match=r"class names .* models.<slot>.names"):
        describe(path)
    assert describe(path, Overrides(names=("a", "b", "c"))).names == ("a", "b", "c")


def test_unknown_task_is_refused_and_can_be_overridden(tmp_path):
    path = make_model(tmp_path / "m.onnx", metadata={"task": "depth"})
    with pytest.raises(UnsupportedModelError, match=r"task 'depth'.*obb.*models.<slot>.task"):
        describe(path)
    assert describe(path, Overrides(task=Task.DETECT)).task is Task.DETECT


@pytest.mark.parametrize("key", ["stride", "imgsz", "kpt_shape"])
@pytest.mark.parametrize("text", ["", "x", "-1", "[1, 2, 3, 'x']", "{}", "1e99", "[0, 0]"])
def test_lesser_metadata_that_is_not_understood_is_ignored_and_it_is_said(tmp_path, key, text):
    path = make_model(tmp_path / "m.onnx", metadata={key: text})
    assert f"{key}: the metadata" in "".join(describe(path).inferred)


@pytest.mark.parametrize("where", ["metadata", "override"])
def test_size_of_a_dynamic_model(tmp_path, where):
    path = make_model(
        tmp_path / "m.onnx",
        dynamic_size=True,
        metadata={"imgsz": "[96, 160]" if where == "metadata" else None},
    )
    sizes = Overrides(width=160, height=96) if where == "override" else None
    info = describe(path, sizes)
    assert (info.width, info.height, info.inferred) == (160, 96, ())
    assert info.outputs[0].shape == (1, 7, 12 * 20 + 6 * 10 + 3 * 5)


def test_dynamic_model_that_says_nothing_runs_at_640(tmp_path):
    path = make_model(tmp_path / "m.onnx", dynamic_size=True, metadata={"imgsz": None})
    info = describe(path)
    assert (info.width, info.height) == (640, 640)
    assert info.inferred == tuple(
        f"input {side}: 640, the file leaves it open" for side in ("height", "width")
    )


def test_dynamic_size_off_the_stride_is_refused_with_the_nearest(tmp_path):
    path = make_model(tmp_path / "m.onnx", dynamic_size=True)
    with pytest.raises(UnsupportedModelError, match=r"650 .* stride 32; .*input_width to 640"):
        describe(path, Overrides(width=650))


def test_size_that_contradicts_a_fixed_model_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx", size=64)
    with pytest.raises(UnsupportedModelError, match=r"height is fixed at 64.*input_height is 96"):
        describe(path, Overrides(height=96))
    assert describe(path, Overrides(height=64, width=64)).height == 64


def test_classifier_without_softmax_gives_logits_and_it_is_said(tmp_path):
    info = describe(make_model(tmp_path / "m.onnx", "classify", logits=True))
    assert info.logits
    assert "softmax is applied" in "".join(info.inferred)


def test_foreign_classifiers_normalisation_is_pointed_out(tmp_path):
    path = make_model(tmp_path / "m.onnx", "classify", metadata=False)
    assert "without mean" in "".join(describe(path).inferred)


@pytest.mark.parametrize("names", [(), ("a", "b", "c\n"), ("a", "b", "x" * 300)])
def test_names_of_the_configuration_are_checked_too(tmp_path, names):
    path = make_model(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match=r"class names are .*models.<slot>.names"):
        describe(path, Overrides(names=names))


def test_classifier_whose_number_of_classes_is_open_needs_names(tmp_path):
    path = small_model(tmp_path / "m.onnx", {"out": [1, 5]})
    model = onnx.load(path)
    model.graph.node[0].domain = "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "n"
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match=r"how many classes.*models.<slot>.names"):
        describe(path)
    assert describe(path, Overrides(names=tuple("abcde"))).layout is Layout.CLASSES


def test_classifier_is_not_understood_as_something_else(tmp_path):
    path = make_model(tmp_path / "m.onnx", "classify")
    for overrides in (Overrides(task=Task.DETECT), Overrides(layout=Layout.YOLO)):
        with pytest.raises(UnsupportedModelError, match="not understood"):
            describe(path, overrides)


def test_rows_out_of_a_suppression_are_no_classes(tmp_path):
    path = small_model(tmp_path / "m.onnx", {"rows": [1, 7]})
    model = onnx.load(path)
    inputs = ["rows_w", "rows_w"]
    model.graph.node.append(helper.make_node("NonMaxSuppression", inputs, ["picked"]))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match="not understood"):
        describe(path)


def test_graph_that_contradicts_itself_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx", declared=False)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match="shape of its output 'output0' cannot be told"):
        describe(path)


def test_graph_that_shape_inference_refuses_stays_open(tmp_path):
    path = make_model(tmp_path / "m.onnx", declared=False)
    model = onnx.load(path)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match="shape of its output 'output0' cannot be told"):
        describe(path)


def test_deviation_of_zero_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match=r"models.<slot>.std"):
        describe(path, Overrides(std=(0.0, 1.0, 1.0)))


def test_keypoints_without_metadata_are_told_from_the_rest(tmp_path):
    for keypoints in ((5, 3), (5, 2)):
        changes = {"kpt_shape": None}
        path = make_model(tmp_path / "m.onnx", "pose", keypoints=keypoints, metadata=changes)
        info = describe(path)
        assert info.keypoint_shape == keypoints
        assert "keypoints: 5 of" in "".join(info.inferred)


def small_model(path, outputs, image=("images", TensorProto.FLOAT, [1, 3, 320, 320])):
    """A model whose outputs are constants of these shapes."""
    nodes, weights = [], []
    for name, shape in outputs.items():
        weights.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"{name}_w"))
        nodes.append(helper.make_node("Identity", [f"{name}_w"], [name]))
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(*image)], results, weights)
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(
    "outputs",
    [
        {"heads": [1, 3, 8, 8, 85]},
        {"a": [1, 144, 80, 80], "b": [1, 144, 40, 40]},
        {"boxes": [1, 300, 4], "scores": [1, 300, 80]},
        {"count": [1, 1], "boxes": [1, 100, 4], "scores": [1, 100], "classes": [1, 100]},
        {"rows": [37, 7]},
        {"rows": [1, 6000, 85]},
        {"rows": [1, 3, 2]},
        {"scalar": []},
    ],
    ids=str,
)
def test_unknown_layout_is_refused_with_the_shapes(tmp_path, outputs):
    path = small_model(tmp_path / "m.onnx", outputs)
    with pytest.raises(UnsupportedModelError, match="accepted are yolo") as caught:
        describe(path)
    for shape in outputs.values():
        assert str(shape) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outputs_that_are_not_asked_for_are_left_alone(tmp_path):
    outputs = {"out": [1, 6300, 85], "raw0": [1, 3, 8, 8, 85], "raw1": [1, 3, 4, 4, 85]}
    info = describe(small_model(tmp_path / "m.onnx", outputs))
    assert (info.layout, len(info.names)) == (Layout.ANCHOR, 80)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (("x", TensorProto.FLOAT, [1, 64, 64, 3]), r"x \[1, 64, 64, 3\]; one image input"),
        (("x", TensorProto.FLOAT, [1, 1, 64, 64]), r"x \[1, 1, 64, 64\]; one image"),
        (("x", TensorProto.FLOAT, [1, 3]), r"x \[1, 3\]; one image"),
        (("x", TensorProto.FLOAT, None), r"x \[\.\.\.\]; one image"),
        (("x", TensorProto.INT64, [1, 3, 64, 64]), "type INT64"),
        (("x", TensorProto.FLOAT, [1, 3, 64, 100_000]), "width is 100000"),
    ],
)
def test_input_that_is_no_picture_is_refused(tmp_path, image, said):
    path = small_model(tmp_path / "m.onnx", {"out": [1, 84, 84]}, image)
    with pytest.raises(UnsupportedModelError, match=said):
        describe(path)


def test_second_input_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.INT64, [1, 2]))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match=r"images \[1, 3, 64, 64\], size \[1, 2\]"):
        describe(path)


def test_weights_among_the_inputs_of_old_files_are_no_inputs(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    for weight in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    onnx.save(model, path)
    assert describe(path).input.name == "images"


def test_shape_that_stays_open_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx", declared=False)
    model = onnx.load(path)
    model.graph.node[-1].domain = "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match="shape of its output 'output0' cannot be told"):
        describe(path)


def test_open_shape_is_decided_by_names_and_layout(tmp_path):
    path = make_model(tmp_path / "m.onnx", declared=False, metadata={"end2end": None})
    model = onnx.load(path)
    model.graph.node[-1].domain = "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["b", "c", "n"])
    )
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match=r"layout yolo, 3.*Set models.<slot>.layout"):
        describe(path)
    assert describe(path, Overrides(layout=Layout.YOLO)).layout is Layout.YOLO
