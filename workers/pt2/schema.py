"""The JSON of a .pt2 as far as it is read: types only. Guards, expressions, metadata and sample inputs have no field here."""

from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from sparring.workers.errors import Refused, shown
from sparring.workers.pt2.archive import malformed

MAJOR = 8
"""Major version of the schema this reader knows (torch 2.5 and later)."""

Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,250}$")]
"""A value of the graph."""
Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_\-]{0,100}(\.[A-Za-z0-9_][A-Za-z0-9_\-]{0,100}){0,30}$")]
"""A parameter's or buffer's place in the module tree."""
MAX_NODES = 10_000
"""Operations of a graph; a ViT of 24 layers has about 850."""
MAX_TENSORS = 20_000
"""Parameters, buffers and constants together."""
Argument = Annotated[dict[str, Any], Field(max_length=8)]
"""A tagged union, `{"as_int": 3}`; the graph builder reads it kind by kind."""

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
STRIDED = 7


class Part(BaseModel):
    """A piece of the schema. Strict types; fields not named here are skipped unread."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Hint(Part):
    """The value a symbolic size had when the model was exported."""

    as_int: Natural | None = None


class Expression(Part):
    """A symbolic size: only its hint is read, the expression itself never."""

    hint: Hint | None = None


class Size(Part):
    """One size: a number, or an expression."""

    as_int: Natural | None = None
    as_expr: Expression | None = None

    @property
    def known(self) -> int | None:
        """The number, or what an expression was at export; None if neither is there."""
        if self.as_int is not None:
            return self.as_int
        return self.as_expr.hint.as_int if self.as_expr and self.as_expr.hint else None


class TensorMeta(Part):
    """What a tensor looks like."""

    dtype: int
    sizes: Annotated[list[Size], Field(max_length=32), FailFast()]
    strides: Annotated[list[Size], Field(max_length=32), FailFast()]
    storage_offset: Size
    requires_grad: bool
    layout: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of its elements. Raises Refused for types that are not read (complex, float8 …)."""
        if self.dtype not in DTYPES:
            raise Refused("unsupported", f"tensors of scalar type {self.dtype} are not read", hint="Use float32.", detail="dtype")
        return DTYPES[self.dtype]


class Payload(Part):
    """Where a parameter's bytes are."""

    path_name: Annotated[str, Field(pattern=r"^(weight|tensor)_[0-9]{1,7}$")]
    is_param: bool
    use_pickle: bool
    tensor_meta: TensorMeta


class PayloadConfig(Part):
    """Every parameter, buffer or constant by its name."""

    config: Annotated[dict[Path, Payload], Field(max_length=MAX_TENSORS)]


class TensorName(Part):
    """A tensor of the graph, by name."""

    name: Name


class NamedArgument(Part):
    """An operator's argument."""

    name: Annotated[str, Field(max_length=100)]
    arg: Argument


class Node(Part):
    """One operation."""

    target: Annotated[str, Field(max_length=200)]
    inputs: Annotated[list[NamedArgument], Field(max_length=64), FailFast()]
    outputs: Annotated[list[Argument], Field(max_length=64), FailFast()]


class Graph(Part):
    """The operations in their order."""

    nodes: Annotated[list[Node], Field(max_length=MAX_NODES), FailFast()]
    tensor_values: Annotated[dict[Name, Any], Field(max_length=4 * (MAX_NODES + MAX_TENSORS))]
    """What every tensor looks like; `looks` reads the one that is asked for."""

    def looks(self, name: str) -> TensorMeta:
        """What a tensor looks like. Raises Refused if the graph does not say."""
        if name not in self.tensor_values:
            raise malformed(f"the graph does not say what its input {shown(name)} looks like")
        return parse(TensorMeta, self.tensor_values[name], f"tensor {name}")


class ParameterInput(Part):
    """A parameter enters the graph."""

    arg: TensorName
    parameter_name: Path


class BufferInput(Part):
    """A buffer enters the graph."""

    arg: TensorName
    buffer_name: Path
    persistent: bool


class ConstantInput(Part):
    """A constant tensor enters the graph."""

    arg: TensorName
    tensor_constant_name: Path


class UserInput(Part):
    """The user's input enters the graph."""

    arg: Argument


class InputSpec(Part):
    """Exactly one of these; kinds without a field (tokens, custom objects, constants) are refused."""

    user_input: UserInput | None = None
    parameter: ParameterInput | None = None
    buffer: BufferInput | None = None
    tensor_constant: ConstantInput | None = None

    @property
    def state(self) -> tuple[str, str] | None:
        """Name in the graph and place in the module tree of a parameter, buffer or constant; None for anything else."""
        if self.parameter is not None:
            return self.parameter.arg.name, self.parameter.parameter_name
        if self.buffer is not None:
            return self.buffer.arg.name, self.buffer.buffer_name
        if self.tensor_constant is not None:
            return self.tensor_constant.arg.name, self.tensor_constant.tensor_constant_name
        return None


class UserOutput(Part):
    """A result of the model."""

    arg: Argument


class OutputSpec(Part):
    """Only results are read; mutations and losses are refused."""

    user_output: UserOutput | None = None


class Signature(Part):
    """What enters the graph and what leaves it."""

    input_specs: Annotated[list[InputSpec], Field(max_length=MAX_TENSORS), FailFast()]
    output_specs: Annotated[list[OutputSpec], Field(max_length=1000), FailFast()]

    @property
    def names(self) -> frozenset[str]:
        """Places of the parameters, buffers and constants that enter the graph."""
        return frozenset(spec.state[1] for spec in self.input_specs if spec.state)


class GraphModule(Part):
    """The graph with its signature."""

    graph: Graph
    signature: Signature


class SchemaVersion(Part):
    """Version of the JSON."""

    major: int
    minor: int


class Program(Part):
    """models/model.json."""

    graph_module: GraphModule
    schema_version: SchemaVersion


P = TypeVar("P", bound=Part)


def parse(kind: type[P], content: object, record: str) -> P:
    """A record (bytes), or a part of one that was parsed, as `kind`. Raises Refused naming the place of the first fault."""
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])[:200]
        message = f"{record}: {fault['msg'][:200]} at {place!a}"
        if fault["type"] == "too_long":
            raise Refused("bad_model", message, hint="Upload a smaller model.", detail="too_large") from error
        raise malformed(message) from error
