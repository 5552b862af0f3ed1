"""ONNX: where nodes stand, what T and B they see, how often they run, and recurrences that are no nodes."""

import numpy as np
import pytest

from bench.grid.models import Input, read
from bench.grid.models.onnx import observed
from tests.bench.grid.layers import B, H, I, T, inputs, refused, run
from tests.bench.grid.models.onnx_files import graph, model, node, outputs, single, value, weights, written

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
import onnx

helper = onnx.helper


def found(a_graph, tmp_path, steps=T, batch=B, **options):
    path = written(model(onnx, a_graph, **options), tmp_path / "net.onnx")
    return read(str(path), steps, batch)


def seen(a_model):
    return {name: (layer.seq_len, layer.batch_size, layer.calls) for name, layer in a_model.layers.items()}


def branch(kind="GRU", out="hs", name="it", given=("x", "W", "R", "B")):
    return graph(onnx, [node(onnx, kind, given, [out], name)], outputs=[out])


# --- containers ---------------------------------------------------------------------------------------------------


def test_functions_are_written_out_where_they_are_called(tmp_path):
    """One within another, called twice, its weights and hidden_size handed in."""
    versions = [helper.make_opsetid("", 14), helper.make_opsetid("local", 1)]
    inner = node(onnx, "LSTM", name="inner")
    del inner.attribute[:]
    inner.attribute.append(onnx.AttributeProto(name="hidden_size", ref_attr_name="size", type=onnx.AttributeProto.INT))
    deep = helper.make_function("local", "Deep", ["x", "W", "R", "B"], ["hs"], [inner], versions, ["size"])
    call = helper.make_node("Deep", ["x", "W", "R", "B"], ["hs"], domain="local", size=H)
    outer = helper.make_function("local", "Outer", ["x", "W", "R", "B"], ["hs"], [call], versions)
    nodes = [helper.make_node("Outer", ["x", "W", "R", "B"], [name], domain="local") for name in ("one", "two")]
    nodes.append(node(onnx, "LSTM", name="plain"))
    a_graph = graph(onnx, nodes, [value(onnx, "x", ["steps", "batch", I])], ["one", "two", "hs"], weights("LSTM"))
    a_model = found(a_graph, tmp_path, functions=[deep, outer])
    assert len(a_model.layers) == 3
    assert set(seen(a_model).values()) == {(T, B, 1)}
    assert "plain" in a_model.layers
    ref = outputs(tmp_path / "net.onnx", x=inputs())[0][:, 0]
    for layer in a_model.layers.values():
        np.testing.assert_allclose(run(layer, inputs()), ref, atol=1e-6)


@pytest.mark.parametrize("takes", [0, 8])
def test_branches_of_which_one_runs(tmp_path, takes):
    """Both are measured with what they see; a number that the file compares an input with is tried if 0 fails."""
    found_weights = weights("GRU")
    one, other = branch(name="then"), branch(name="else")
    if takes:  # a branch that fails
        other.node.insert(0, helper.make_node("Reshape", ["x", "shape"], ["bad"]))
        other.node[1].input[0] = "bad"
    nodes = [helper.make_node("Equal", ["rate", "eight"], ["yes"]),
             helper.make_node("If", ["yes"], ["hs"], then_branch=one, else_branch=other)]  # fmt: skip
    a_graph = graph(onnx, nodes, [value(onnx, "x", ["steps", "batch", I]), value(onnx, "rate", [], 7)],
                    constants=found_weights | {"eight": np.int64(8), "shape": np.array([1, 2, 3])})  # fmt: skip
    a_model = found(a_graph, tmp_path)
    assert a_model.inputs == {"x": Input("float32", [T, B, I]), "rate": Input("int64", [], takes or None)}
    assert any(words.startswith("The whole is run with rate = 8") for words in a_model.told) == bool(takes)
    if takes:
        assert seen(a_model) == {"then": (T, B, 1)}
        assert a_model.left_out == {"else": "it stands where these inputs do not lead, and what its T and B would be "
                                            "is not known"}  # fmt: skip
    else:
        assert seen(a_model) == {"then": (T, B, 0), "else": (T, B, 1)}


def test_a_loop_and_a_scan(tmp_path):
    """A node in a loop sees one call's steps, one in a scan a slice's, and both run as often as their bodies."""
    body = graph(onnx, [helper.make_node("Identity", ["yes"], ["on"]), node(onnx, name="looped")],
                 [value(onnx, "i", [], 7), value(onnx, "yes", [], 9)], [value(onnx, "on", [], 9), "hs"])  # fmt: skip
    loop = helper.make_node("Loop", ["count", ""], ["all"], body=body, name="loop")
    slices = graph(onnx, [helper.make_node("Unsqueeze", ["x_t", "zero"], ["x1"]),
                          node(onnx, "GRU", ("x1", "W", "R", "B"), name="scanned")],
                   [value(onnx, "x_t", None)], ["hs"])  # fmt: skip
    scan = helper.make_node("Scan", ["x"], ["each"], body=slices, num_scan_inputs=1, name="scan")
    a_graph = graph(onnx, [loop, scan], [value(onnx, "x", ["steps", "batch", I])], ["all", "each"],
                    weights("GRU") | {"count": np.int64(5), "zero": np.array([0])})  # fmt: skip
    assert seen(found(a_graph, tmp_path)) == {"looped": (T, B, 5), "scanned": (1, B, T)}


def test_a_sequence_that_is_mapped(tmp_path):
    body = graph(onnx, [node(onnx, "GRU", ("one", "W", "R", "B"), ["h"], "mapped")], ["one"], ["h"])
    nodes = [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1, keepdims=1),
             helper.make_node("SequenceMap", ["parts"], ["states"], body=body),
             helper.make_node("ConcatFromSequence", ["states"], ["all"], axis=2)]  # fmt: skip
    a_graph = graph(onnx, nodes, [value(onnx, "x", ["steps", "batch", I])], ["all"], weights("GRU"))
    assert seen(found(a_graph, tmp_path, opset=17)) == {"mapped": (T, 1, B)}


def test_without_onnx_runtime_nothing_is_guessed(tmp_path, monkeypatch):
    nodes = [helper.make_node("If", ["yes"], ["out"], then_branch=branch(name="a"), else_branch=branch(name="b")),
             node(onnx, name="top", out=["t"])]  # fmt: skip
    values = [value(onnx, "x", ["steps", "batch", I]), value(onnx, "yes", [], 9)]
    monkeypatch.setattr(observed, "find_spec", lambda _: None)
    a_model = found(graph(onnx, nodes, values, ["out", "t"], weights("GRU")), tmp_path)
    assert seen(a_model) == {"top": (T, B, 1)}
    assert a_model.left_out == dict.fromkeys("ab", "its T and B are known to a run in ONNX Runtime alone, which "
                                                   "cannot be had here")  # fmt: skip


@pytest.mark.parametrize(("name", "broken"), [("TIME_LIMIT_S", 0.01), ("sys.executable", "/bin/false")])
def test_a_run_that_takes_too_long_or_dies(tmp_path, monkeypatch, name, broken):
    monkeypatch.setattr(f"bench.grid.models.onnx.observed.{name}", broken)
    inner = helper.make_node("If", ["yes"], ["hs"], then_branch=branch(name="a"), else_branch=branch(name="b"))
    values = [value(onnx, "x", [None, None, I]), value(onnx, "yes", [], 9)]
    path = written(model(onnx, graph(onnx, [inner], values, constants=weights("GRU"))), tmp_path / "net.onnx")
    refused(path, ".*got b: its T and B are not known, since ONNX Runtime cannot run the model with T = 12 and B = 3.*")


# --- axes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("names", [(None, None), ("?", "?"), ("unk__5", "s77"), ("batch", "time"), ("time", "batch")])
def test_axes_by_their_use(tmp_path, names, layout):
    """Whatever they are called: the first is the steps, or of layout 1 the batch."""
    path = written(single(onnx, "GRU", (*names, I), layout=layout), tmp_path / "net.onnx")
    a_model = read(str(path), T, B)
    assert seen(a_model) == {"it": (T, B, 1)}
    assert a_model.inputs["x"].shape == ([B, T, I] if layout else [T, B, I])
    assert not any("is taken to be" in words for words in a_model.told)


@pytest.mark.parametrize("turned", [False, True])
def test_axes_that_inference_cannot_follow(tmp_path, turned):
    """Behind a Reshape to a shape that is computed, a state whose axis has no name, and in a branch."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "order"], ["same"]),
             helper.make_node("Reshape", ["x", "same"], ["x2"]),
             helper.make_node("Transpose", ["x2"], ["x3"], perm=[1, 0, 2] if turned else [0, 1, 2]),
             node(onnx, "GRU", ("x3", "W", "R", "B", "", "h0"), name="it")]  # fmt: skip
    inner = graph(onnx, nodes, outputs=["hs"])
    same = graph(onnx, [helper.make_node("Identity", ["x"], ["as_is"])], outputs=["as_is"])
    a_graph = graph(onnx, [helper.make_node("If", ["never"], ["out"], then_branch=same, else_branch=inner)],
                    [value(onnx, "x", [None, None, I]), value(onnx, "h0", [1, None, H]), value(onnx, "never", [], 9)],
                    ["out"], weights("GRU") | {"order": np.array([0, 1, 2])})  # fmt: skip
    a_model = found(a_graph, tmp_path)
    assert seen(a_model) == {"it": (T, B, 1)}
    assert a_model.inputs["x"].shape == ([B, T, I] if turned else [T, B, I])
    assert a_model.inputs["h0"].shape == [1, B, H]


def test_two_layers_agree_where_the_second_is_behind_a_computed_shape(tmp_path):
    """As PyTorch's exporter by dynamo writes them."""
    first, second = weights("GRU"), weights("GRU", size=H)
    nodes = [node(onnx, out=["h"], name="first"), helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
             helper.make_node("Shape", ["t"], ["s"]), helper.make_node("Gather", ["s", "two"], ["begin"]),
             helper.make_node("Concat", ["begin", "rest"], ["shape"], axis=0),
             helper.make_node("Reshape", ["t", "shape"], ["x2"]),
             node(onnx, "GRU", ("x2", "W2", "R2", "B2"), name="second")]  # fmt: skip
    constants = (
        first | {f"{name}2": a for name, a in second.items()} | {"two": np.array([0, 1]), "rest": np.array([-1])}
    )
    for dims, sizes in (([T + 5, "s77", I], (T + 5, B)), (["s77", "s27", I], (T, B))):
        a_graph = graph(onnx, nodes, [value(onnx, "x", dims)], constants=constants)
        assert seen(found(a_graph, tmp_path)) == dict.fromkeys(("first", "second"), (*sizes, 1))


def test_an_axis_that_no_layer_depends_on_is_told(tmp_path):
    a_model = single(onnx)
    a_model.graph.input.append(value(onnx, "more", [None, "width"]))
    told = read(str(written(a_model, tmp_path / "net.onnx")), T, B).told
    assert "Axis 0 of more is taken to be the batch." in told
    assert "The axis width is taken to be the steps." in told


def test_open_axes_of_zero_and_below(tmp_path):
    a_model = single(onnx)
    for axis, size in enumerate((0, -1)):
        a_model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    assert seen(read(str(written(a_model, tmp_path / "net.onnx")), T, B)) == {"it": (T, B, 1)}


def test_nodes_without_names_and_of_one_name_in_two_graphs(tmp_path):
    nodes = [
        node(onnx, out=["a"], name=""),
        node(onnx, out=["b"], name=""),
        node(onnx, out=["c"], name="same"),
        helper.make_node("If", ["yes"], ["d"], then_branch=branch(name="same"), else_branch=branch(name="same")),
    ]
    a_graph = graph(onnx, nodes, [value(onnx, "x", ["steps", "batch", I]), value(onnx, "yes", [], 9)], list("abcd"),
                    weights("GRU"))  # fmt: skip
    a_model = found(a_graph, tmp_path)
    assert seen(a_model) == {"a": (T, B, 1), "b": (T, B, 1), "same": (T, B, 1), "same (2)": (T, B, 1),
                             "same (3)": (T, B, 0)}  # fmt: skip
    from bench.implementations import onnxruntime as runtime

    arrays = {"x": inputs(), "yes": np.array(False)}
    assert runtime.recurrent(str(tmp_path / "net.onnx"), arrays, 2).keys() == {"", "a", "b", "same", "same (2)"}


# --- recurrences that are no nodes --------------------------------------------------------------------------------


def unrolled(steps, new=True, bend="Tanh"):
    """Return a chain of products by the same weights, each with or without something new."""
    nodes, h = [helper.make_node("MatMul", ["x", "U"], ["xu"])], "h0"
    for n in range(steps):
        nodes += [helper.make_node("Gather", ["xu", f"n{n}"], [f"x{n}"], axis=0),
                  helper.make_node("MatMul", [h, "W"], [f"p{n}"], name=f"product {n}"),
                  helper.make_node("Add", [f"p{n}", f"x{n}" if new else "b"], [f"a{n}"]),
                  helper.make_node(bend, [f"a{n}"], [f"h{n + 1}"])]  # fmt: skip
        h = f"h{n + 1}"
    constants = {"U": np.ones((I, H), np.float32), "W": np.ones((H, H), np.float32), "b": np.ones(H, np.float32)}
    constants |= {f"n{n}": np.int64(n) for n in range(steps)}
    dims = [value(onnx, "x", [steps, B, I]), value(onnx, "h0", [B, H])]
    return graph(onnx, nodes, dims, [h], constants)


NONE = "expected a recurrent layer that can be measured, got no recurrent layer"


def test_a_recurrence_that_is_unrolled(tmp_path):
    path = written(model(onnx, unrolled(9)), tmp_path / "net.onnx")
    refused(path, ".*got product 0: a recurrence unrolled into 9 of MatMul by the same weights, one after the other")


@pytest.mark.parametrize("a_graph", [unrolled(9, new=False), unrolled(2), unrolled(9, bend="Identity")],
                         ids=["layers that share weights", "a pair", "without an activation"])  # fmt: skip
def test_what_is_no_recurrence(tmp_path, a_graph):
    refused(written(model(onnx, a_graph), tmp_path / "net.onnx"), NONE)


def test_a_network_of_layers_on_each_step_is_no_recurrence(tmp_path):
    nodes = [helper.make_node("Split", ["x", "ones"], [f"x{n}" for n in range(4)], axis=0)]
    for n in range(4):
        nodes += [helper.make_node("MatMul", [f"x{n}", "U"], [f"p{n}"]), helper.make_node("Tanh", [f"p{n}"], [f"h{n}"])]
    nodes.append(helper.make_node("Concat", [f"h{n}" for n in range(4)], ["y"], axis=0))
    constants = {"U": np.ones((I, H), np.float32), "ones": np.ones(4, np.int64)}
    a_graph = graph(onnx, nodes, [value(onnx, "x", [4, B, I])], ["y"], constants)
    refused(written(model(onnx, a_graph), tmp_path / "net.onnx"), NONE)


@pytest.mark.parametrize("bend", ["Tanh", "Softmax"])
def test_a_recurrence_in_a_loop(tmp_path, bend):
    body = graph(onnx, [helper.make_node("MatMul", ["h", "W"], ["p"]), helper.make_node("Add", ["p", "x_t"], ["a"]),
                        helper.make_node(bend, ["a"], ["h_new"]), helper.make_node("Identity", ["h_new"], ["each"])],
                 [value(onnx, "h", [B, H]), value(onnx, "x_t", [B, H])], ["h_new", "each"])  # fmt: skip
    scan = helper.make_node("Scan", ["h0", "x"], ["last", "all"], body=body, num_scan_inputs=1, name="scan")
    a_graph = graph(onnx, [scan], [value(onnx, "x", [T, B, H]), value(onnx, "h0", [B, H])], ["all"],
                    {"W": np.ones((H, H), np.float32)})  # fmt: skip
    why = ".*got scan: a recurrence in the body of a Scan, which is no RNN, GRU or LSTM node"
    refused(written(model(onnx, a_graph), tmp_path / "net.onnx"), why if bend == "Tanh" else NONE)


def test_the_step_of_an_lstm(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "U", "b"], ["g"], transB=1),
             helper.make_node("Split", ["g"], list("ifuo"), axis=1),
             *(helper.make_node("Sigmoid", [one], [f"s{one}"]) for one in "ifo"),
             helper.make_node("Tanh", ["u"], ["tu"]),
             helper.make_node("Mul", ["sf", "c"], ["kept"]), helper.make_node("Mul", ["si", "tu"], ["new"]),
             helper.make_node("Add", ["kept", "new"], ["c1"]), helper.make_node("Tanh", ["c1"], ["tc"]),
             helper.make_node("Mul", ["so", "tc"], ["h1"], name="last")]  # fmt: skip
    constants = {"U": np.ones((4 * H, I), np.float32), "b": np.ones(4 * H, np.float32)}
    a_graph = graph(onnx, nodes, [value(onnx, "x", [B, I]), value(onnx, "c", [B, H])], ["h1", "c1"], constants)
    why = ".*got last: a step of an LSTM written as Sigmoid, Tanh and Mul, which is no LSTM node"
    refused(written(model(onnx, a_graph), tmp_path / "net.onnx"), why)


@pytest.mark.parametrize("names", [("s0", "s1"), (None, None)])
def test_the_steps_of_a_loop_are_not_the_batch(tmp_path, names):
    """A loop picks a step each time, so that its layers see one, and run T times."""
    steps = [helper.make_node("Gather", ["x", "k"], ["one"], axis=0),
             helper.make_node("Unsqueeze", ["one", "0"], ["x1"]),
             node(onnx, "GRU", ("x1", "W", "R", "B", "", "h"), ("hs", "h1")),
             helper.make_node("Identity", ["go"], ["goes"])]  # fmt: skip
    given = [value(onnx, "k", [], 7), value(onnx, "go", [], 9), value(onnx, "h")]
    body = graph(onnx, steps, given, [value(onnx, "goes", [], 9), "h1", "hs"])
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "first"], ["count"]),
             helper.make_node("Gather", ["s", "middle"], ["batch"]),
             helper.make_node("Concat", ["one_", "batch", "H"], ["shape"], axis=0),
             helper.make_node("ConstantOfShape", ["shape"], ["h0"]),
             helper.make_node("Loop", ["count", "", "h0"], ["h2", "out"], body=body)]  # fmt: skip
    constants = weights("GRU") | {"0": np.array([0]), "first": np.array(0), "middle": np.array([1]),
                                  "one_": np.array([1]), "H": np.array([H])}  # fmt: skip
    a_graph = graph(onnx, nodes, [value(onnx, "x", [*names, I])], ["out"], constants)
    a_model = found(a_graph, tmp_path)
    assert seen(a_model) == {"it": (1, B, T)}
    assert a_model.inputs["x"].shape == [T, B, I]


def test_an_input_of_no_shape_that_reaches_a_layer(tmp_path):
    a_graph = graph(onnx, [node(onnx)], ["x"], constants=weights("GRU"))
    a_model = found(a_graph, tmp_path)
    assert seen(a_model) == {"it": (T, B, 1)}
    assert a_model.inputs is None
    assert f"it: T = {T} by --seq-len and B = {B} by --batch, since the file says neither." in a_model.told
