"""Figures that a study asks for: kinds, and what a file may say of each."""

from __future__ import annotations

from pydantic import BaseModel

KINDS: dict[str, type[BaseModel]] = {}
