"""Models by the name that they ship under, the path of a YAML file, or a Hugging Face config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npusim import catalog
from npusim.errors import InputError
from npusim.schema import checked
from npusim.templates.hugging_face import read_config
from npusim.templates.hyperparameters import Model, check
from npusim.templates.parameter_count import model_parameters
from npusim.yaml_tree import Tree, read_tree


def load_model(name: str | Path, settings: Mapping[str, Any] | None = None) -> Model:
    """Return the hyperparameters of a model.

    Parameters
    ----------
    name : str or Path
        A name that ships, or the path of a YAML file or of a Hugging Face ``config.json``.
    settings : mapping, optional
        Dotted path -> value that takes the place of the one in the file.

    Raises
    ------
    InputError, InputErrors
        No such model, or sizes that are wrong or do not go together: each by its field.

    Examples
    --------
    >>> load_model("paddleocr_vl").decoder.attention.kv_heads
    2
    >>> load_model("paddleocr_vl", {"decoder.attention.kv_heads": 3})
    Traceback (most recent call last):
        ...
    npusim.errors.InputError: ...: decoder.attention.kv_heads: does not divide the heads: 3 ...
    """
    path = catalog.find("models", name)
    tree = read_config(path) if path.suffix.lower() == ".json" else read_tree(path)
    if settings:
        tree = _with(tree, settings)
    if "dtype" not in tree.values:
        raise InputError("is missing", file=path, place="dtype", allowed="fp32, bf16, fp16",
                         hint="transformers takes fp32 then: say it, --set dtype=fp32")  # fmt: skip
    model = check(checked(tree, Model), path)
    counted = model_parameters(model)
    if not settings and model.parameters not in (None, counted):
        raise InputError("the sizes make another number of parameters", file=path,
                         place=tree.place(("parameters",)), value=model.parameters,
                         allowed=f"{counted:,}")  # fmt: skip
    return model


def _with(tree: Tree, settings: Mapping[str, Any]) -> Tree:
    """Return a file with some values changed."""
    values: dict[str, Any] = _copied(tree.values)
    for path, value in settings.items():
        if not isinstance(path, str):
            raise InputError("not a dotted path", file=tree.file, value=path)
        *parents, last = path.split(".")
        node: Any = values
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise InputError("not a setting of a model", file=tree.file, value=path)
        node[last] = value
    return Tree(tree.file, values, tree.lines)


def _copied(node: Any) -> Any:
    return {k: _copied(v) for k, v in node.items()} if isinstance(node, dict) else node
