"""Strict configuration: YAML text to the components' own frozen dataclasses and back.

Knows no component: the caller names the dataclass. An unknown key is an error with its dotted path and the nearest
valid name; nothing is converted silently (`"3"` is no integer). Classes carry
`__pydantic_config__ = {"extra": "forbid"}`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

Config = TypeVar("Config")


def load_config(cls: type[Config], path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """The dataclass `cls` filled from a YAML file, then from overrides such as `model.layers=3`.

    A key that is not given keeps its default. Errors: `FileNotFoundError`; `ValueError` that names the file, the dotted
    path and what was expected there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return from_dict(
        cls, with_overrides(_parsed(path.read_text(encoding="utf-8"), str(path)), overrides), source=str(path)
    )


def from_dict(cls: type[Config], data: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """The dataclass `cls` from nested plain values; `source` names them in errors.

    >>> from amden.diffusion.schedule import Diffusion
    >>> from_dict(Diffusion, {"positions": {"sigma_max": 1.7}}).positions.sigma_max
    1.7
    >>> from_dict(Diffusion, {"positions": {"sigma": 1.7}})
    Traceback (most recent call last):
    ...
    ValueError: configuration: unknown key `positions.sigma`, did you mean `sigma_max`?
    """
    text = json.dumps(_completed(cls, data, None), default=str)
    try:
        return TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(cls, e) for e in error.errors(include_url=False))
    raise ValueError(f"{source}: {'; '.join(problems)}")


def with_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with each override `a.b=value` set; values are read as YAML, a number names a place in a list.

    >>> with_overrides({"model": {"layers": 4}}, ["model.layers=3", "rate=1e-3"])
    {'model': {'layers': 3}, 'rate': 0.001}
    """
    result = dict(data)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise ValueError(f"an override must look like `a.b=value`, got {override!r}")
        result = _set(result, keys, _yaml(text, f"override `{dotted}`"), dotted)
    return result


def to_dict(config: object) -> dict[str, Any]:
    """Nested plain values (JSON types) of a configuration, every default written out.

    >>> from amden.diffusion.vocabulary import Vocabulary
    >>> to_dict(Vocabulary((8, 14)))
    {'species': [8, 14], 'ghosts': False}
    """
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def to_yaml(config: object) -> str:
    """YAML text of a configuration that `load_config` reads back to an equal one.

    >>> from amden.diffusion.schedule import VarianceExploding
    >>> print(to_yaml(VarianceExploding()), end="")
    sigma_max: 1.5
    """
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars (`1e-3` is a number, `no` is text) and an error for a key that comes twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping of a node, each key once."""
        keys = [key.value for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                mark = node.value[i][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"key `{key}` comes twice", mark)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float | int:
        """A number; `1e5` without a point is the integer 100000."""
        text = node.value.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan")
        value = float(text)
        return int(value) if re.fullmatch(r"[-+]?\d+e\+?\d+", text) and abs(value) < 2**53 else value


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or the loader would take for something else."""


_FLOAT = re.compile(
    r"^[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)(?:e[-+]?\d+)?$|^[-+]?\d+e[-+]?\d+$|^[-+]?\.inf$|^\.nan$", re.IGNORECASE
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{source}{where}: not valid YAML: {problem or str(error).splitlines()[0]}") from None


def _parsed(text: str, source: str) -> dict[str, Any]:
    data = _yaml(text, source)
    if not isinstance(data, dict):
        raise ValueError(f"{source}: must be a mapping of keys to values, got {type(data).__name__}")
    return data


def _set(data: Any, keys: Sequence[str], value: Any, dotted: str) -> Any:
    if not keys:
        return value
    head, *rest = keys
    if isinstance(data, list) and head.isdecimal() and int(head) < len(data):
        i = int(head)
        return [*data[:i], _set(data[i], rest, value, dotted), *data[i + 1 :]]
    if not isinstance(data, Mapping):
        raise ValueError(f"override `{dotted}`: there is no `{head}` in {data!r}")
    return {**data, head: _set(data.get(head, {}), rest, value, dotted)}


def _completed(cls: type, given: Mapping[str, Any], default: object | None) -> dict[str, Any]:
    """`given` over the default *instance*, so that naming one key of a section keeps the section's other defaults."""
    result = dict(given)
    hints = get_type_hints(cls)
    for f in fields(cls):
        inner = _default(f) if default is None else getattr(default, f.name)
        section, value = hints[f.name], given.get(f.name)
        if isinstance(section, type) and is_dataclass(section) and isinstance(value, Mapping):
            result[f.name] = _completed(section, value, inner if type(inner) is section else None)
        elif default is not None and f.name not in given:
            result[f.name] = TypeAdapter(hints[f.name]).dump_python(inner, mode="json")
    return result


def _default(f: Field) -> object | None:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return None if f.default is MISSING else f.default


def _problem(cls: type, error: Mapping[str, Any]) -> str:
    """One clause that says what is wrong where."""
    loc = [part for part in error["loc"] if not _is_class_name(part, cls)]
    path = ".".join(map(str, loc))
    if error["type"] == "unexpected_keyword_argument":
        *parents, last = loc
        names = {f.name for owner in _owners(cls, parents) for f in fields(owner)}
        if last in names:
            return f"key `{path}` does not go with the other keys beside it"
        near = get_close_matches(str(last), names, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(sorted(names))}"
        return f"unknown key `{path}`, {hint}"
    if error["type"] == "missing":
        return f"`{path}` is missing"
    if error["type"] == "value_error":
        return f"`{path}`: {error['ctx']['error']}" if loc else str(error["ctx"]["error"])
    if error["type"] == "dataclass_type":
        return f"`{path}` must be a mapping, got {error['input']!r}"
    return f"`{path}` {error['msg'].replace('Input should be', 'must be')}, got {error['input']!r}"


def _owners(hint: Any, path: Sequence[str | int]) -> Iterator[type]:
    """Dataclasses that may stand at `path` below a type."""
    if get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _owners(member, path)
    elif is_dataclass(hint):
        if not path:
            yield hint  # pyright: ignore[reportReturnType]
        else:
            yield from _owners(get_type_hints(hint).get(str(path[0])), path[1:])
    elif path and get_args(hint):
        for member in get_args(hint):
            yield from _owners(member, path[1:])


def _is_class_name(part: str | int, cls: type) -> bool:
    """Whether a part of pydantic's location is the name of a union's member, not a key."""
    return isinstance(part, str) and ("[" in part or part in _member_names(cls))


def _member_names(hint: Any) -> set[str]:
    if is_dataclass(hint):
        return set().union(*(_member_names(h) for h in get_type_hints(hint).values()))
    union = get_origin(hint) in (Union, UnionType)
    below = set().union(*(_member_names(h) for h in get_args(hint)))
    return below | {m.__name__ for m in get_args(hint) if union and isinstance(m, type)}
