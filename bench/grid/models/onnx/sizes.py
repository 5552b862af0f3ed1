"""How many steps and sequences each recurrent node sees, and how often: T, B and calls.

They follow from the shapes of the model's inputs. Which of an input's open axes are the steps and which the batch is
read from what becomes of them: an axis that changes the T of a node when it is doubled is the steps, one that changes B
the batch. ONNX's own shape inference tells where it can; where it cannot, or nodes stand in a branch or a loop, the
model is run by ONNX Runtime, which tells the shapes that it sees (`observed`). Names of axes come last, and what
they alone decide is told.
"""

import re
from collections.abc import Iterator
from itertools import combinations, product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from bench.grid.models import MOST_NUMBERS, clean, library
from bench.grid.models.onnx.graph import Branch, Place, graphs, inputs
from bench.grid.models.onnx.observed import Runner, Seen

LARGE = 1024  # numbers of a constant from which on no shape follows
MOST_OPEN = 6  # axes whose role is sought by trying all
MOST_PROBED = 24  # by doubling one
MOST_FORCED = 8
MOST_VALUES = 4
OTHER = {"T": "B", "B": "T"}
BATCH = re.compile(r"batch|^(bs|b|n)$", re.IGNORECASE)
STEPS = re.compile(r"time|step|seq|len|frame|sample|word|token|^(t|s|l)$", re.IGNORECASE)

Key = tuple  # of an open axis: (its name,), or (input, axis) where it has none


class Size(NamedTuple):
    """What a recurrent node sees."""

    axes: tuple[int, int] | None  # of its x, the first two; None: the file does not tell
    open: tuple[bool, bool]  # whether each follows from what the command says
    calls: int | None  # in a run of the whole; None: nobody knows


class Sizes(NamedTuple):
    inputs: dict[str, list[int]]
    values: dict[str, int]  # of inputs of one whole number that the file compares with it
    nodes: dict[str, Size]  # by their names
    left_out: dict[str, str]  # the reason, of those whose sizes cannot be known
    told: tuple[str, ...]


def sizes(model: Any, places: list[Place], folder: Path, steps: int, batch: int) -> Sizes:
    """Return what each node sees when the model is run on so many steps and sequences."""
    return _Search(model, places, folder, steps, batch).found()


class _Search:
    def __init__(self, model: Any, places: list[Place], folder: Path, steps: int, batch: int) -> None:
        self.onnx, self.model, self.folder, self.places = library("onnx", "peers"), model, folder, places
        self.asked = {"T": steps, "B": batch}
        self.types = {value.name: _dtype(self.onnx, value) for value in inputs(model)}
        self.axes = {value.name: _axes(value) for value in inputs(model)}
        self.keys = list(dict.fromkeys(one for axes in self.axes.values() for one in axes if isinstance(one, tuple)))
        self.roles = {key: _guess(key) for key in self.keys}
        self.settled: set[Key] = set()  # keys whose role was read from what becomes of them
        self.batch_first = {place.name: _is_batch_first(place) for place in places}
        self.longest = sorted(self.batch_first, key=len, reverse=True)
        self.seen: dict[str, tuple[int, int]] = {}
        self.depends: dict[str, str] = {}  # which of T and B follow from the command
        self.calls: dict[str, int | None] = {place.name: None if place.within else 1 for place in places}
        self.left_out: dict[str, str] = {}
        self.values: dict[str, int] = {}

    def found(self) -> Sizes:
        self._infer()
        vague = [key for key in self.keys if key not in self.settled and not (_is_clear(key) and self.seen)]
        if vague or any(place.within or place.name not in self.seen for place in self.places):
            with Runner(self.model, self.folder) as runner:
                self._observe(runner, vague)
        nodes = {place.name: self._size(place.name) for place in self.places if place.name not in self.left_out}
        return Sizes(self._shapes(self.roles), self.values, nodes, self.left_out, tuple(self._told()))

    def _size(self, name: str) -> Size:
        axes, depends = self.seen.get(name), self.depends.get(name, "")
        are_open = tuple(axes is None or what in depends for what in self._order(name))
        return Size(axes, (are_open[0], are_open[1]), self.calls[name])

    def _order(self, name: str) -> str:
        """Return which of T and B the first two axes of a node's x are."""
        return "BT" if self.batch_first[name] else "TB"

    def _shapes(self, roles: dict[Key, str], twice: Key | None = None) -> dict[str, list[int]]:
        """Return the inputs' shapes with these roles of their open axes, one of them maybe doubled."""

        def size(one: int | Key) -> int:
            return one if isinstance(one, int) else self.asked[roles[one]] * (1 + (one == twice))

        return {name: [size(one) for one in axes] for name, axes in self.axes.items()}

    def _infer(self) -> None:
        """Find what shape inference tells of the roles of axes and of the nodes."""
        skeleton = _skeleton(self.onnx, self.model)
        for _ in range(2):  # the second time with what the first has found
            self.seen, found = self._inferred(skeleton, self._shapes(self.roles)), dict(self.roles)
            self.depends = {}
            for key in self.keys[:MOST_PROBED]:
                moved = self._moved(self.seen, self._inferred(skeleton, self._shapes(self.roles, key)))
                if len(moved) == 1:
                    found[key] = moved
                    self.settled.add(key)
            if self.roles == found:
                return
            self.roles = found

    def _moved(self, seen: dict, other: dict) -> str:
        """Return which of T and B differ between two runs in any node, and keep which do in each."""
        found = set()
        for name in seen.keys() & other.keys():
            for what, one, two in zip(self._order(name), seen[name], other[name], strict=True):
                if one != two:
                    self.depends[name] = self.depends.get(name, "") + what
                    found.add(what)
        return "".join(sorted(found))

    def _inferred(self, skeleton: Any, shapes: dict[str, list[int]]) -> dict[str, tuple[int, int]]:
        """Return the first axes of each node's x that follow from the inputs' shapes."""
        model = _fixed(self.onnx, skeleton, shapes)
        try:
            model = self.onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception:  # a model that is wrong somewhere, or too large
            return {}
        known: dict[tuple[Branch, ...], dict[str, list[int]]] = {}
        for graph, within in graphs(model):
            values = [*graph.value_info, *graph.input, *graph.output]
            known[within] = {value.name: _known(value) for value in values if _known(value)}
        found = {}
        for place in self.places:
            for deep in range(len(place.within), -1, -1):
                shape = known.get(place.within[:deep], {}).get(place.node.input[0])
                if shape is not None:
                    found[place.name] = (shape[0], shape[1])
                    break
        return found

    def _observe(self, runner: Runner, vague: list[Key]) -> None:
        """Have the model run, to see what inference does not tell."""
        inner = [place.name for place in self.places if place.within]
        for name in inner:  # of which inference tells what another branch would make of it
            self.seen.pop(name, None)
        too_large = any(prod(shape) > MOST_NUMBERS for shape in self._shapes(self.roles).values())
        if too_large or not runner.is_there:
            self._leave_out(inner, "its T and B are known to a run in ONNX Runtime alone, which cannot be had here")
            return
        tried = []
        for roles, values in self._tried(vague):
            self.roles, self.values = roles, values
            tried.append((roles, values, self._run(runner)))
            if tried[-1][2].works:
                break
        self.roles, self.values, run = next((one for one in tried if one[2].works), tried[0])
        run = self._doubled(runner, run)
        if run.works:
            forced = self._forced(runner, run)
            self.calls |= {place.name: run.nodes.get(place.name, (0,))[0] for place in self.places}
            why = "it stands where these inputs do not lead, and what its T and B would be is not known"
        else:
            forced = []
            sizes = f"T = {self.asked['T']} and B = {self.asked['B']} (--seq-len, --batch)"
            why = f"its T and B are not known, since ONNX Runtime cannot run the model with {sizes}"
        for one in (*forced, run):
            self._take(one)
        self._leave_out(inner, why)

    def _leave_out(self, names: list[str], why: str) -> None:
        self.left_out |= {name: why for name in names if name not in self.seen}

    def _run(
        self,
        runner: Runner,
        roles: dict[Key, str] | None = None,
        twice: Key | None = None,
        forced: dict[str, bool] | None = None,
    ) -> Seen:
        shapes = self._shapes(self.roles if roles is None else roles, twice)
        run = runner.run({name: (self.types[name], shapes[name], self.values.get(name)) for name in shapes}, forced)
        nodes: dict[str, tuple[int, tuple[int, int]]] = {}
        for shown, (count, axes) in run.nodes.items():  # with something before a name where it was written out
            if (name := next((name for name in self.longest if shown.endswith(name)), None)) is not None:
                nodes[name] = nodes.get(name, (0,))[0] + count, axes
        return Seen(run.works, nodes)

    def _take(self, run: Seen) -> None:
        self.seen |= _axes_of(run)

    def _tried(self, vague: list[Key]) -> Iterator[tuple[dict[Key, str], dict[str, int]]]:
        """Yield the roles of axes and the values of inputs that are worth a try, the likeliest first."""
        few = vague[: -MOST_OPEN - 1 : -1] if self.asked["T"] != self.asked["B"] else []
        compared = _compared(self.onnx, self.model)
        values = [dict(zip(compared, one, strict=True)) for one in product(*([0, *many] for many in compared.values()))]
        roles = dict(self.roles)
        for count in range(len(few) + 1):
            for flipped in combinations(few, count):
                for given in values[:MOST_VALUES]:
                    yield {key: OTHER[role] if key in flipped else role for key, role in roles.items()}, given

    def _doubled(self, runner: Runner, run: Seen) -> Seen:
        """Return a run again after it was seen what becomes of twice the steps and of twice the batch.

        Where T follows the axes that were taken for the batch, and B those for the steps, they change their roles; else
        each axis alone has the role of what changes with it.
        """
        known = _axes_of(run)
        asked, moved = self.asked, []
        for role in "TB":
            self.asked = asked | {role: 2 * asked[role]}
            other = self._run(runner) if role in self.roles.values() else run
            moved.append(self._moved(known, _axes_of(other)))
        self.asked = asked
        if not run.works:
            return run
        swaps = moved in (["B", "T"], ["B", ""], ["", "T"]) and not self.settled and asked["T"] != asked["B"]
        if moved == ["B", "T"] and swaps:
            run = self._swapped(runner, run, self.keys, moved)
        known, bound, alone, repeats = _axes_of(run), [], {}, []
        for key in [key for key in self.keys if key not in self.settled][:MOST_OPEN]:
            one = self._run(runner, twice=key)  # which fails where it must agree with others of its role
            if not one.works:
                bound.append(key)
            elif len(what := self._moved(known, _axes_of(one))) == 1:
                alone[key] = what
            elif any(one.nodes.get(name, (0,))[0] != count for name, (count, _) in run.nodes.items()):
                repeats.append(key)
        if alone:
            of_loops = dict.fromkeys(repeats, "T") if "T" not in alone.values() else {}  # a step a call
            roles = self.roles | alone | of_loops
            again = self._run(runner, roles) if self.roles != roles else run
            if again.works:
                self.roles, run = roles, again
                self.settled |= alone.keys()
        elif swaps and moved != ["T", "B"]:
            run = self._swapped(runner, run, bound or self.keys, moved)
        self.settled |= {key for key in bound if moved["TB".index(self.roles[key])] == self.roles[key]}
        return run

    def _swapped(self, runner: Runner, run: Seen, keys: list[Key], moved: list[str]) -> Seen:
        """Have these axes change their roles where the model runs so, and return that run."""
        roles = {key: OTHER[role] if key in keys else role for key, role in self.roles.items()}
        if (again := self._run(runner, roles)).works:
            self.roles, run = roles, again
            moved.reverse()
        return run

    def _forced(self, runner: Runner, run: Seen) -> list[Seen]:
        """Return runs in which the conditions are such that nodes run that did not."""
        ways = []
        for place in self.places:
            ifs = {one.node: one.taken for one in place.within if one.kind == "If"}
            if place.name not in run.nodes and ifs and ifs not in ways:
                ways.append(ifs)
        return [self._run(runner, forced=ifs) for ifs in ways[:MOST_FORCED]]

    def _told(self) -> list[str]:
        """Return what of the inputs was assumed: by the names and places of axes alone, or since it works."""
        words = {"T": "the steps", "B": "the batch"}
        found = [
            f"The whole is run with {clean(name)} = {value}, which the file compares it with."
            for name, value in self.values.items()
            if value
        ]
        for key in self.keys if self.asked["T"] != self.asked["B"] else ():
            if key not in self.settled and not _is_clear(key):
                axis = f"The axis {clean(str(key[0]))}" if len(key) == 1 else f"Axis {key[1]} of {clean(str(key[0]))}"
                found.append(f"{axis} is taken to be {words[self.roles[key]]}.")
        return found


def _axes_of(run: Seen) -> dict[str, tuple[int, int]]:
    return {name: axes for name, (_, axes) in run.nodes.items()}


def _compared(onnx: Any, model: Any) -> dict[str, list[int]]:
    """Return the numbers that the file compares inputs of one whole number with."""
    single = {
        value.name
        for value in inputs(model)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        and all(size.dim_value == 1 for size in value.type.tensor_type.shape.dim)
    }
    found: dict[str, list[int]] = {}
    for graph, _ in graphs(model):
        constants = {tensor.name: tensor for tensor in graph.initializer}
        constants |= {node.output[0]: one.t for node in graph.node for one in node.attribute if one.name == "value"}
        for node in graph.node:
            for name, other in (node.input, reversed(node.input)) if node.op_type == "Equal" else ():
                if name in single and other in constants and prod(constants[other].dims) == 1:
                    number = int(onnx.numpy_helper.to_array(constants[other]).item())
                    found.setdefault(name, []).extend([number] * (number > 0))
    return found


def _dtype(onnx: Any, value: Any) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except KeyError:
        return "unknown"


def _axes(value: Any) -> list[int | Key]:
    """Return an input's axes: a size, or the key of an open one."""
    found: list[int | Key] = []
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if size.HasField("dim_value") and size.dim_value > 0:
            found.append(size.dim_value)
        else:
            found.append((size.dim_param,) if re.search(r"[A-Za-z]", size.dim_param) else (value.name, axis))
    return found


def _guess(key: Key) -> str:
    """Return the role of an open axis by its name, or of one that has none by its place."""
    if len(key) == 1:
        return "B" if BATCH.search(key[0]) else "T"
    return "B" if key[1] == 0 else "T"


def _is_clear(key: Key) -> bool:
    """Return whether an axis has a name that tells its role."""
    return len(key) == 1 and bool(BATCH.search(key[0]) or STEPS.search(key[0]))


def _is_batch_first(place: Place) -> bool:
    return any(one.name == "layout" and one.i == 1 for one in place.node.attribute)


def _known(value: Any) -> list[int]:
    """Return the shape of a value of three axes, or nothing if it is not known."""
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
    return sizes if len(sizes) == 3 and all(size > 0 for size in sizes) else []


def _skeleton(onnx: Any, model: Any) -> Any:
    """Return a model without the numbers of its large constants, nor the shapes that it was exported with."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for graph, _ in graphs(found):
        constants = [one.t for node in graph.node for one in node.attribute if one.HasField("t")]
        for tensor in (*graph.initializer, *constants):
            if prod(tensor.dims) > LARGE:
                for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                    tensor.ClearField(field)
                tensor.data_location = onnx.TensorProto.EXTERNAL
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
    return found


def _fixed(onnx: Any, skeleton: Any, shapes: dict[str, list[int]]) -> Any:
    """Return a model whose inputs have these shapes."""
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    for value in inputs(model):
        for size, number in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            size.dim_value = number
    return model
