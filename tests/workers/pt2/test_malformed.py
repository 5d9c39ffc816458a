"""Archives, graphs and tensors that lie: refused with the right code, in little memory, before anything is computed."""

import json
import random
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from sparring.contract.specs import ModelSpec
from sparring.workers.errors import Refused
from sparring.workers.models import load_model
from sparring.workers.pt2 import archive, schema, shapes
from tests.workers.pt2 import nets

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def reason(path: Path):
    with pytest.raises(Refused) as refused:
        load_model(path, "pt2", ModelSpec())
    assert refused.value.reason.message
    return refused.value.reason


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _prefixed(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())


def _followed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"<script>")


def _commented(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"hello"


def _damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"weight_4") + 3000] ^= 1
    path.write_bytes(content)


def _two_roots(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/extra/a", b"")


def _duplicate(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("model/byteorder", b"little")


def _case_collision(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model/BYTEORDER", b"little")


def _stray(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model/setup.py", b"")


def _climbing(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model/extra/../../../evil", b"")


def _absolute(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("/model/extra/a", b"")


def _link(path: Path) -> None:
    info = zipfile.ZipInfo("model/extra/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(info, b"/etc/passwd")


def _deflated(path: Path) -> None:
    content = nets.records(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(f"model/{name}", data)


def _directory_entry(path: Path, offset: int, form: str, value: int) -> None:
    """Overwrite a field of the last entry of the central directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.rindex(b"PK\1\2") + offset, value)
    path.write_bytes(content)


def _encrypted(path: Path) -> None:
    _directory_entry(path, 8, "<H", 1)


def _lying_size(path: Path) -> None:
    _directory_entry(path, 24, "<L", 1 << 30)


def _lying_both_sizes(path: Path) -> None:
    _directory_entry(path, 20, "<L", 1 << 30)
    _directory_entry(path, 24, "<L", 1 << 30)


def _lying_offset(path: Path) -> None:
    _directory_entry(path, 42, "<L", 0)


def _other_local_name(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"model/byteorder")
    content[at : at + 15] = b"model/byteordeX"
    path.write_bytes(content)


SPOILED = [
    _truncated,
    _half,
    _empty,
    _prefixed,
    _followed,
    _commented,
    _damaged,
    _two_roots,
    _duplicate,
    _case_collision,
    _stray,
    _climbing,
    _absolute,
    _link,
    _deflated,
    _encrypted,
    _lying_size,
    _lying_both_sizes,
    _lying_offset,
    _other_local_name,
]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__.strip("_"))
def test_lying_archives_are_refused(spoil, sound):
    nets.pack(sound, nets.records(sound))
    load_model(sound, "pt2", ModelSpec())
    spoil(sound)
    assert reason(sound).detail == "malformed"


def test_an_oversized_graph_is_not_read(sound, monkeypatch):
    monkeypatch.setattr(archive, "MAX_JSON", 1000)
    assert reason(sound).detail == "too_large"


def test_a_graph_of_too_many_values_is_not_parsed(sound):
    """16 MiB of empty lists would be a gigabyte once they are parsed, even in a field that is skipped."""
    assert reason(nets.changed(sound, lambda program: program.update(guards_code=[[]] * (1 << 19)))).detail == "too_large"
    load_model(nets.changed(sound, lambda program: program.update(guards_code=[[]] * (1 << 18))), "pt2", ModelSpec())


def _many(place: list, count: int):
    """The last entry of a list or dictionary, over and over, without what is skipped."""

    def change(part):
        for key in place:
            part = part[key]
        last = list(part.values())[-1] if isinstance(part, dict) else part[-1]
        last.pop("metadata", None)
        if isinstance(part, dict):
            part.update({f"more{at}": last for at in range(count)})
        else:
            part.extend([last] * count)

    return change


GRAPH = ["graph_module", "graph"]


@pytest.mark.parametrize(
    ("place", "count", "record"),
    [
        ([*GRAPH, "nodes"], schema.MAX_NODES, MODEL),
        ([*GRAPH, "nodes", -1, "inputs"], 64, MODEL),
        ([*GRAPH, "nodes", -1, "outputs"], 64, MODEL),
        (["graph_module", "signature", "input_specs"], schema.MAX_TENSORS, MODEL),
        (["graph_module", "signature", "output_specs"], 1000, MODEL),
        (["config"], schema.MAX_TENSORS, WEIGHTS),
    ],
)
def test_lists_are_only_so_long(place, count, record, sound):
    told = reason(nets.changed(sound, _many(place, count), record))
    assert (told.detail, place[-1] in told.message) == ("too_large", True)
    assert told.hint


def test_only_so_many_tensors_are_described(sound):
    def describe(program):
        program["graph_module"]["graph"]["tensor_values"].update({f"more{at}": {} for at in range(160_000)})

    assert reason(nets.changed(sound, describe)).detail == "too_large"


def test_arguments_are_only_so_many(sound):
    told = reason(nets.changed(sound, _node("torch.ops.aten.zeros.default", size={"as_ints": [1] * 200_000})))
    assert (told.detail, "arguments" in told.message) == ("too_large", True)


def test_parts_of_results_count_as_nodes(sound, monkeypatch):
    def part(program):
        node = program["graph_module"]["graph"]["nodes"][-1]
        node["target"] = "torch.ops.aten.unbind.int"
        node["inputs"] = [{"name": "self", "arg": X, "kind": 1}]
        node["outputs"] = [{"as_tensors": [{"name": f"part{at}"} for at in range(1000)]}]

    path = nets.changed(sound, part)
    assert reason(path).detail != "too_large"
    monkeypatch.setattr("sparring.workers.pt2.graph.MAX_NODES", 1000)
    assert "1000 nodes" in reason(path).message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"a":' * 100_000, b"\xff", b"9" * 10_000])
def test_a_graph_that_is_no_json_object_is_refused(content, sound):
    spoiled = nets.records(sound)
    spoiled["models/model.json"] = content
    assert reason(nets.pack(sound, spoiled)).detail == "malformed"


@pytest.mark.parametrize("record", ["archive_format", "archive_version", "byteorder"])
def test_another_kind_of_archive_is_named(record, sound):
    spoiled = nets.records(sound)
    spoiled[record] = b"big"
    told = reason(nets.pack(sound, spoiled))
    assert (told.code, told.detail) == ("unsupported", "archive_version")


def test_another_version_of_the_schema_is_named(sound):
    assert reason(nets.changed(sound, lambda program: program["schema_version"].update(major=9))).detail == "schema_version"


def _set(place: list, value):
    def change(part):
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value

    return change


FC = ["config", "fc.weight"]
META = [*FC, "tensor_meta"]


@pytest.mark.parametrize(
    ("place", "value", "detail"),
    [
        ([*META, "sizes"], [{"as_int": 10}, {"as_int": 129}], "malformed"),
        ([*META, "sizes"], [{"as_int": -10}, {"as_int": -128}], "malformed"),
        ([*META, "sizes"], [{"as_int": 2**62}, {"as_int": 4}], "malformed"),
        ([*META, "sizes"], [{"as_int": 2**70}, {"as_int": 1}], "malformed"),
        ([*META, "sizes"], [{"as_expr": {"expr_str": "1", "hint": {"as_int": 10}}}, {"as_int": 128}], "malformed"),
        ([*META, "sizes"], [{"as_int": 1}] * 1000, "too_large"),
        ([*META, "sizes"], [{"as_int": True}, {"as_int": 128}], "malformed"),
        ([*META, "strides"], [{"as_int": 129}, {"as_int": 1}], "malformed"),
        ([*META, "strides"], [{"as_int": -1}, {"as_int": 1}], "malformed"),
        ([*META, "strides"], [{"as_int": 1}], "malformed"),
        ([*META, "storage_offset"], {"as_int": 1}, "malformed"),
        ([*META, "storage_offset"], {"as_int": -1}, "malformed"),
        ([*META, "dtype"], 8, "malformed"),
        ([*META, "dtype"], 10, "dtype"),
        ([*META, "dtype"], "7", "malformed"),
        ([*META, "layout"], 1, "layout"),
        ([*FC, "path_name"], "../../../etc/passwd", "malformed"),
        ([*FC, "path_name"], "weight_99", "malformed"),
        ([*FC, "is_param"], False, "malformed"),
        (["config"], {}, "malformed"),
    ],
)
def test_lying_weights_are_refused(place, value, detail, sound):
    assert reason(nets.changed(sound, _set(place, value), WEIGHTS)).detail == detail


def test_a_stride_of_zero_does_not_make_four_exabytes(sound):
    def stretch(config):
        meta = config["config"]["fc.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 2**30}, {"as_int": 2**30}], [{"as_int": 0}, {"as_int": 0}]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(nets.changed(sound, stretch, WEIGHTS)).detail == "malformed"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_many_names_of_one_record_do_not_multiply_it(sound, monkeypatch):
    """Every name would be a buffer of its own on a GPU, and is looked at for NaN."""
    names = [f"more{at}" for at in range(300)]

    def point(config):
        config["config"].update(dict.fromkeys(names, config["config"]["bn.running_mean"]))

    def enter(program):
        specs = program["graph_module"]["signature"]["input_specs"]
        specs[:0] = [{"buffer": {"arg": {"name": name}, "buffer_name": name, "persistent": True}} for name in names]

    read, count = archive.Archive.read, []
    monkeypatch.setattr(archive.Archive, "read", lambda self, name, *limit: (count.append(name), read(self, name, *limit))[1])
    unused = nets.changed(sound, point, WEIGHTS)
    assert load_model(unused, "pt2", ModelSpec()).module.state_dict().keys().isdisjoint(names)
    assert len(count) == len(set(count))
    names = names[:20]
    load_model(nets.changed(unused, enter), "pt2", ModelSpec())
    monkeypatch.setattr("sparring.workers.pt2.tensors.TIES", 1)
    told = reason(nets.changed(unused, enter))
    assert (told.code, told.detail) == ("bad_model", "tensor_too_large")


def test_any_view_inside_its_record_is_read_as_it_is(sound):
    def shift(config):
        config["config"]["fc.weight"]["tensor_meta"]["strides"] = [{"as_int": 1}, {"as_int": 10}]

    weight = load_model(sound, "pt2", ModelSpec()).module.fc.weight
    turned = load_model(nets.changed(sound, shift, WEIGHTS), "pt2", ModelSpec()).module.fc.weight
    assert torch.equal(turned, weight.flatten().as_strided((10, 128), (1, 10)))


def _node(target: str, **inputs):
    """Replace the last operation of the graph, keeping its result's name."""

    def change(program):
        node = program["graph_module"]["graph"]["nodes"][-1]
        node["target"] = target
        node["inputs"] = [{"name": name, "arg": arg, "kind": 1} for name, arg in inputs.items()]

    return change


def test_a_graph_that_asks_for_too_much_memory_is_refused_before_it_runs(sound):
    shape = {"as_ints": [2**18, 2**18]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = reason(nets.changed(sound, _node("torch.ops.aten.zeros.default", size=shape)))
    assert (told.detail, "zeros" in told.message) == ("tensor_too_large", True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_what_an_operator_makes_on_its_way_is_counted(tmp_path):
    class Triangle(nets.nn.Module):
        shape = (512,)

        def __init__(self):
            super().__init__()
            self.a = nets.nn.Parameter(torch.rand(512, 512))

        def forward(self, x):
            return x[:, :10] + torch.einsum("ab,cd,ac,bd->", self.a, self.a, self.a, self.a)

    with torch.device("meta"):
        model = Triangle()
    batches = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    exported = torch.export.export(model, (torch.rand(2, 512, device="meta"),), dynamic_shapes=batches, strict=False)
    with pytest.raises(Refused) as refused:
        shapes.check_shapes(exported.module(check_guards=False), (512,), torch.float32)
    assert refused.value.reason.detail == "tensor_too_large"
    assert "einsum" in refused.value.reason.message


def _ones(count: int, *, kept: bool):
    """So many GiB in a row; all alive until the end if they are kept."""

    def change(program):
        nodes = program["graph_module"]["graph"]["nodes"]
        made = [{"as_tensor": {"name": f"one{at}"}} for at in range(count)]
        size = {"name": "size", "arg": {"as_ints": [2**27]}, "kind": 1}
        kind = {"name": "dtype", "arg": {"as_scalar_type": 8}, "kind": 1}
        ones = [{"target": "torch.ops.aten.ones.default", "inputs": [size, kind], "outputs": [name], "metadata": {}} for name in made]
        seen = [
            {
                "target": "torch.ops.aten.sum.default",
                "inputs": [{"name": "self", "arg": name, "kind": 1}],
                "outputs": [{"as_tensor": {"name": f"sum{at}"}}],
                "metadata": {},
            }
            for at, name in enumerate(made)
        ]
        nodes[:0] = [*ones, *seen] if kept else [node for pair in zip(ones, seen, strict=True) for node in pair]

    return change


def test_results_that_are_alive_at_once_are_added_up(sound):
    told = reason(nets.changed(sound, _ones(5, kept=True)))
    assert (told.detail, f"{5 << 30} bytes" in told.message) == ("tensor_too_large", True)


def test_results_that_are_not_needed_any_more_count_no_longer(sound, monkeypatch):
    monkeypatch.setattr("sparring.workers.models._classes", lambda *_: 10)
    load_model(nets.changed(sound, _ones(20, kept=False)), "pt2", ModelSpec())


def test_a_view_larger_than_its_memory_is_refused(sound):
    def stretch(program):
        one = {"target": "torch.ops.aten.ones.default", "outputs": [{"as_tensor": {"name": "one"}}], "metadata": {}}
        program["graph_module"]["graph"]["nodes"][-1:-1] = [one | {"inputs": [{"name": "size", "arg": {"as_ints": [1]}, "kind": 1}]}]
        _node("torch.ops.aten.expand.default", self={"as_tensor": {"name": "one"}}, size={"as_ints": [2**40]})(program)

    assert reason(nets.changed(sound, stretch)).detail == "tensor_too_large"


def test_a_large_view_inside_an_operator_is_no_memory():
    """On rows that are not contiguous, linear() makes a view of its weight for every one of them."""

    class Across(nets.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nets.nn.Linear(768, 2304)

        def forward(self, x):
            return self.fc(x.transpose(0, 1)).mean(0)

    batches = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    with torch.device("meta"):
        exported = torch.export.export(Across(), (torch.rand(2, 1024, 768),), dynamic_shapes=batches, strict=False)
    shapes.check_shapes(exported.module(check_guards=False), (1024, 768), torch.float32)


X = {"as_tensor": {"name": "x"}}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (_node("torch.ops.aten.relu.default", self={"as_tensor": {"name": "nowhere"}}), "malformed"),
        (_node("torch.ops.aten.relu.default", self={"as_tensor": {"name": "linear"}}), "malformed"),
        (_node("torch.ops.aten.relu.default", nonsense=X), "malformed"),
        (_node("torch.ops.aten.relu.default"), "malformed"),
        (_node("torch.ops.aten.relu.default", self={"as_graph": {"name": "g", "graph": {}}}), "malformed"),
        (_node("torch.ops.aten.relu.default", self={"as_custom_obj": {"name": "g", "class_fqn": "c"}}), "malformed"),
        (_node("torch.ops.aten.relu.default", self={}), "malformed"),
        (_node("torch.ops.aten.relu.default", self={"as_tensor": {"name": "x"}, "as_int": 1}), "malformed"),
        (_node("torch.ops.aten.relu.default", self={"as_tensor": "x"}), "malformed"),
        (_node("torch.ops.aten.relu.default", self={"as_int": 1}), "graph_error"),
        (_node("torch.ops.aten.softmax.int", self=X, dim={"as_int": 99}), "graph_error"),
        (_node("torch.ops.aten.softmax.int", self=X, dim={"as_int": 2**64}), "malformed"),
        (_node("torch.ops.aten.softmax.int", self=X, dim={"as_string": "1"}), "graph_error"),
        (_node("torch.ops.aten.softmax.int", self=X, dim={"as_int": 1}, dtype={"as_scalar_type": 99}), "malformed"),
        (_node("torch.ops.aten.zeros.default", size={"as_ints": 5}), "malformed"),
        (_node("torch.ops.aten.zeros.default", size={"as_ints": [-5, 5]}), "graph_error"),
        (_node("_operator.mul", a=X, b={"as_int": 2}), "malformed"),
        (_node("_operator.floordiv", a={"as_int": 1}, b={"as_int": 0}), "graph_error"),
    ],
)
def test_lying_graphs_are_refused(change, detail, sound):
    assert reason(nets.changed(sound, change)).detail == detail


def test_sizes_cannot_grow_without_end(sound):
    def square(program):
        nodes = program["graph_module"]["graph"]["nodes"]
        nodes[1:1] = [
            {
                "target": "_operator.mul",
                "inputs": [
                    {"name": side, "arg": {"as_sym_int": {"as_name": f"s{at}" if at else "sym_size_int_1"}}, "kind": 1} for side in "ab"
                ],
                "outputs": [{"as_sym_int": {"as_name": f"s{at + 1}"}}],
                "metadata": {},
            }
            for at in range(40)
        ]

    told = reason(nets.changed(sound, square))
    assert "64 bits" in told.message


def test_a_result_cannot_be_a_node_that_is_not_there(sound):
    def aim(program):
        program["graph_module"]["signature"]["output_specs"][0]["user_output"]["arg"]["as_tensor"]["name"] = "nowhere"

    assert reason(nets.changed(sound, aim)).detail == "malformed"


def test_weights_that_do_not_fit_the_graph_are_named_by_node(sound):
    def shrink(config):
        meta = config["config"]["fc.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 10}, {"as_int": 4}], [{"as_int": 4}, {"as_int": 1}]

    told = reason(nets.changed(sound, shrink, WEIGHTS))
    assert told.detail == "graph_error"
    assert "linear" in told.message


def test_a_sound_archive_packed_anew_still_loads(sound, cnn):
    assert json.loads(nets.records(sound)["models/model.json"])["schema_version"]["major"] == 8
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_model(nets.pack(sound, nets.records(sound)), "pt2", ModelSpec()).module(x), cnn(x))


JUNK = [None, True, -1, 0, 2**31, 2**64, 1e308, "", "x", "linear", [], {}, [1], {"as_int": 1}, {"as_none": True}, {"as_ints": [1, 2]}]


def _places(part, at=()):
    """Every place in a JSON document that is read."""
    entries = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in entries:
        if key not in ("metadata", "module_call_graph"):
            yield (*at, key)
            yield from _places(value, (*at, key))


@pytest.mark.parametrize("record", ["models/model.json", WEIGHTS])
def test_a_file_spoiled_at_random_loads_or_is_refused(record, sound):
    choose = random.Random(record)
    places = list(_places(json.loads(nets.records(sound)[record])))
    outcomes = set()
    for _ in range(100):
        path = nets.changed(sound, _set(list(choose.choice(places)), choose.choice(JUNK)), record)
        try:
            load_model(path, "pt2", ModelSpec())
            outcomes.add("loaded")
        except Refused as refused:
            outcomes.add(refused.reason.detail)
    assert "malformed" in outcomes
    assert "" not in outcomes
