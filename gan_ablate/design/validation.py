"""Validation: turn plain data into checked frozen models, or raise an error that says in one line what is valid."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ModelT = TypeVar("ModelT", bound="Model")

MAX_SIZE = 65_536
MAX_DEPTH = 20
"""The most tables in one another; the deepest field is six tables down."""

MAX_SHOWN = 100
"""The most characters of a name or a value in a message."""

MAX_CHOICES = 60
"""The most valid names in a message."""

Size = Annotated[int, Field(gt=0, le=MAX_SIZE)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Model(BaseModel):
    """A frozen part of a configuration; an error on an unknown field names the valid ones."""

    model_config = ConfigDict(
        frozen=True, strict=True, allow_inf_nan=False, extra="forbid", use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            fields = cls.__pydantic_fields__
            for name in data:
                if name not in fields:
                    raise PydanticCustomError(
                        "unknown_field",
                        "no such field; {advice}",
                        {"field": name, "advice": choices(str(name), list(fields))},
                    )
        return data


def kind_alone(value: Any) -> Any:
    """Let ``"relu"`` stand for ``{kind = "relu"}``."""
    return {"kind": value} if isinstance(value, str) else value


def choices(wrong: str, valid: list[str]) -> str:
    """List the valid names, the nearest first: ``did you mean beta1? valid: beta1, beta2``."""
    near = difflib.get_close_matches(shorten(wrong), valid, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    more = f", and {len(valid) - MAX_CHOICES:,} more" if len(valid) > MAX_CHOICES else ""
    return f"{hint}valid: {', '.join(map(shorten, valid[:MAX_CHOICES]))}{more}"


def look_of(name: str) -> str:
    """Return a name without case, width and separators: ``Real_Label`` becomes ``real label``.

    A sign before a number stays: -1 is not 1.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[^\w.+-]+|_+|(?<=\w)-(?=\w)", " ", folded).strip()


def refuse_lookalikes(names: Sequence[str], where: str) -> None:
    """Refuse names that look alike on a page, or are one file on a system without case.

    Args:
        names: names of one kind.
        where: the table that contains them, for the message.

    Raises:
        UserError: naming the first two.
    """
    seen: dict[str, str] = {}
    for name in names:
        look = look_of(name)
        if seen.get(look) == name:
            raise UserError(f"{where}: {shorten(repr(name))} stands there twice; valid: once")
        if look in seen:
            both = f"{shorten(repr(seen[look]))} and {shorten(repr(name))}"
            raise UserError(
                f"{where}: {both} look alike; valid: names that differ in more than case, spaces and _ , : -"
            )
        seen[look] = name


def check_depth(data: dict[str, Any], source: str) -> None:
    """Refuse tables deeper than ``MAX_DEPTH``, dots in names counted, and names that are empty or not printable.

    Args:
        data: the tables.
        source: their file or option, for the message.

    Raises:
        UserError: naming the outermost table.
    """
    layer: list[tuple[str, int, Any]] = [(name, 0, {name: value}) for name, value in data.items()]
    while layer:
        first, depth, value = layer.pop()
        if isinstance(value, dict) and not all(map(_is_name, value)):
            raise UserError(f"{source}: {shorten(first)}: a name is empty, or has characters that cannot be printed")
        if depth > MAX_DEPTH:
            raise UserError(f"{source}: {shorten(first)}: more than {MAX_DEPTH} tables deep, which no field is")
        if isinstance(value, dict):
            layer += [(first, depth + 1 + name.count("."), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            layer += [(first, depth + 1, inner) for inner in value]


def _is_name(name: str) -> bool:
    """Whether a name is printable and has no empty part, as ``a..b`` has; a path such as ``../data`` may have one."""
    return name.isprintable() and ("" not in name.split(".") or "/" in name.strip("/"))


def refusal(field: str, value: object, advice: str, *others: str) -> PydanticCustomError:
    """Return the error of a validator that refuses a field's value.

    Args:
        field: the path of the field.
        value: its value.
        advice: the problem, and what is valid.
        others: paths of the fields that it does not go with; changing any of them may help.
    """
    context = {"field": field, "value": repr(value), "advice": advice, "others": list(others)}
    return PydanticCustomError("refused", "{advice}", context)


def validate(model: type[ModelT], data: dict[str, Any], source: str | Callable[[list[str]], str]) -> ModelT:
    """Build ``model`` from plain data, as TOML or JSON would give it.

    Args:
        model: the class to build.
        data: nested dicts, lists, strings, numbers and booleans.
        source: the origin of the data, for the message: a file, a level, an option. Or a function that returns the
            origin, given the dotted paths of the fields in question.

    Raises:
        UserError: one line that names the source, the field, its value and what is valid.
    """
    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        fields, text = _explain(model, invalid, data)
        raise UserError(f"{source if isinstance(source, str) else source(fields)}: {text}") from None


def _explain(model: type[Model], invalid: ValidationError, data: dict[str, Any]) -> tuple[list[str], str]:
    """Return the paths of the first wrong field and of fields that it conflicts with, and the message."""
    first = invalid.errors()[0]
    context = first.get("ctx", {})
    # Pydantic puts a union's tag into the location; the data has no such key.
    path: list[str] = []
    others: list[str] = []
    node: Any = data
    for part in first["loc"]:
        is_key = isinstance(node, dict) and part in node
        is_index = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if is_key or is_index:
            node = node[part]
            path.append(str(part))
    match first["type"]:
        case "missing":
            others = [".".join([*path, "kind"])]
            path.append(str(first["loc"][-1]))
            problem = " is missing"
        case "unknown_field":
            name = str(context["field"])
            owner = shorten(".".join(path)) or f"a {model.__name__.removesuffix('Config').lower()}"
            kind_of_owner = f" ({shorten(str(node['kind']))})" if isinstance(node, dict) and "kind" in node else ""
            value = node.get(name) if isinstance(node, dict) else None
            path.append(name)
            problem = f" = {_show(value)}: {owner}{kind_of_owner} has {first['msg']}"
        case "refused":
            path, others = [str(context["field"])], context["others"]
            problem = f" = {shorten(context['value'])}: {context['advice']}"
        case "union_tag_invalid" | "union_tag_not_found":
            wrong = node.get("kind") if isinstance(node, dict) else node
            expected = str(context.get("expected_tags", "a table with a kind")).replace("'", "")
            path += [] if isinstance(node, str) else ["kind"]
            problem = f" = {_show(wrong)}: valid: {expected}"
        case "model_type" | "model_attributes_type":
            problem = f" = {_show(node)}: should be a table of fields"
        case "too_short":
            problem = f" = {_show(node)}: valid: at least {context['min_length']}, not {context['actual_length']}"
        case _:
            message = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
            problem = f" = {_show(node)}: {message}"
    field = ".".join(path)
    return [field, *others], (shorten(field) + problem).removeprefix(" = ")


class FieldHelp(NamedTuple):
    """A field of a model, explained.

    Attributes:
        path: the name in a grid file, such as ``generator.norm``.
        valid: the valid values, in words.
        default: the default in TOML; empty where there is none.
        meaning: a sentence, with the paper that the field comes from.
        kinds: of a field that is a table: kind → description.
    """

    path: str
    valid: str
    default: str
    meaning: str
    kinds: dict[str, str]


def describe_fields(model: type[Model]) -> Iterator[FieldHelp]:
    """Explain every field of a model; fields of a table follow it."""
    schema = model.model_json_schema()
    yield from _fields_of(schema, schema["$defs"], "")


def _fields_of(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[FieldHelp]:
    for name, field in schema["properties"].items():
        path = f"{prefix}{name}"
        refs = [part["$ref"] for part in field.get("oneOf", field.get("allOf", [field])) if "$ref" in part]
        nested = [definitions[ref.rsplit("/", 1)[1]] for ref in refs]
        kinds = {
            part["properties"]["kind"]["const"]: " ".join(part.get("description", "").split())
            for part in nested
            if "kind" in part["properties"]
        }
        meaning = " ".join(field.get("description", "").split())
        default = write_toml(field["default"]) if field.get("default") is not None else ""
        if kinds or not nested:
            words = [_valid_words(part) for part in field.get("oneOf", ()) if "$ref" not in part]
            yield FieldHelp(path, " | ".join([*words, *kinds]) or _valid_words(field), default, meaning, kinds)
        for part in nested:
            yield from (f for f in _fields_of(part, definitions, f"{path}.") if f.path != f"{path}.kind")


def _valid_words(field: dict[str, Any]) -> str:
    for part in field.get("anyOf", ()):
        if part.get("type") != "null":
            return _valid_words(part)
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "items" in field:
        return f"list of {_valid_words(field['items'])}"
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return " ".join([str(field.get("type", "")), ", ".join(bounds)]).strip()


def write_toml(value: Any) -> str:
    """Write a value as a grid file has it; a table with only a ``kind`` in its short form."""
    if isinstance(value, dict):
        only_kind = value.get("kind") if list(value) == ["kind"] else None
        inner = ", ".join(f"{name} = {write_toml(item)}" for name, item in value.items())
        return json.dumps(only_kind) if only_kind else f"{{ {inner} }}"
    return json.dumps(value)


def check_device_name(name: str, *, may_be_several: bool = False) -> None:
    """Check the name of a device, without loading PyTorch.

    Args:
        name: of the device.
        may_be_several: whether it may name several GPUs: ``cuda:0,cuda:2``.

    Raises:
        UserError: if it is neither the CPU nor a CUDA device, or names one twice.
    """
    names = list_devices(name) if may_be_several else [name]
    is_list = len(names) > 1
    pattern = r"cuda:[0-9]{1,3}" if is_list else r"cpu|cuda(:[0-9]{1,3})?"
    more = ", cuda:0,cuda:2" if may_be_several else ""
    if not all(re.fullmatch(pattern, one) for one in names):
        raise UserError(f"{option('device', shorten(name))}: not supported; valid: cpu, cuda, cuda:0{more}, …")
    if len(set(names)) < len(names):
        raise UserError(f"{option('device', shorten(name))}: a GPU is named twice; valid: each once")


def list_devices(name: str) -> list[str]:
    """Split ``cuda:0,cuda:2`` into the names of its devices."""
    return [one.strip() for one in name.split(",")]


def shorten(text: str) -> str:
    """Shorten a long name or value for a message, and escape characters that cannot be printed."""
    shown = printable(text[:MAX_SHOWN])
    return shown if len(text) <= MAX_SHOWN else f"{shown}… ({len(text):,} characters)"


def printable(text: str) -> str:
    """Escape characters that cannot be printed, which may control a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _show(value: object) -> str:
    return shorten(json.dumps(value, default=str))
