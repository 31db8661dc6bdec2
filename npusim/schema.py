"""Values of a YAML or JSON file held against a pydantic schema, problems told in our words."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from npusim.errors import InputError, InputErrors
from npusim.yaml_tree import Tree


class Strict(BaseModel):
    """Base of schemas: unknown keys are refused, nothing is converted, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


S = TypeVar("S", bound=BaseModel)

_TYPES = {
    "string_type": "not text", "int_type": "not a whole number", "float_type": "not a number",
    "bool_type": "not true or false", "list_type": "not a list", "model_type": "not a mapping",
    "dict_type": "not a mapping",
}  # fmt: skip


def checked(tree: Tree, schema: type[S]) -> S:
    """Return the values of a file as a schema has them.

    Raises
    ------
    InputError, InputErrors
        What is wrong, each with its place in the file.
    """
    try:
        return schema.model_validate(tree.values)
    except ValidationError as found:
        errors = {str(e): e for e in (_problem(tree, schema, p) for p in found.errors())}
    problems = list(errors.values())
    raise problems[0] if len(problems) == 1 else InputErrors(problems)


def _problem(tree: Tree, schema: type[BaseModel], found: Any) -> InputError:
    place = tuple(found["loc"])
    if found["type"] == "extra_forbidden":
        return tree.error(place, "unknown key", value=place[-1],
                          allowed=", ".join(_keys(schema, place[:-1])))  # fmt: skip
    if found["type"] == "missing":
        return tree.error(place, "is missing")
    if found["type"] == "literal_error":
        return tree.error(place, "not one of those allowed", value=found["input"],
                          allowed=found["ctx"]["expected"].replace("'", ""))  # fmt: skip
    bound = {"greater_than_equal": ("ge", "{} or more"), "less_than_equal": ("le", "up to {}"),
             "greater_than": ("gt", "above {}"), "less_than": ("lt", "below {}")}  # fmt: skip
    if found["type"] in bound:
        key, words = bound[found["type"]]
        return tree.error(place, "out of bounds", value=found["input"],
                          allowed=words.format(found["ctx"][key]))  # fmt: skip
    message = found["msg"].removeprefix("Value error, ")
    message = _TYPES.get(found["type"], message[0].lower() + message[1:])
    return tree.error(place, message, value=found["input"])


def _keys(schema: Any, place: tuple[str | int, ...]) -> list[str]:
    """Return the keys that a level of a schema accepts."""
    for part in place:
        if isinstance(part, int):
            continue
        field = getattr(schema, "model_fields", {}).get(part)
        schema = _model(field.annotation) if field is not None else schema  # a key of a mapping
    return sorted(getattr(schema, "model_fields", {}))


def _model(annotation: Any) -> Any:
    """Return the first schema in an annotation."""
    if hasattr(annotation, "model_fields"):
        return annotation
    found = (_model(inner) for inner in getattr(annotation, "__args__", ()))
    return next((schema for schema in found if schema is not None), None)
