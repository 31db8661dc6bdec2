"""Kinds of fields that hyperparameters of decoders and of encoders share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Size = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2"]
ACTIVATIONS = {"silu": 4, "gelu": 8, "gelu_tanh": 8, "quick_gelu": 5, "relu": 1, "relu2": 2}
"""Activation -> FLOP an element, as importers count them."""

Rule = tuple[str, bool, str, object, str]
"""Field, whether it is wrong, what is, its value and what is allowed."""
