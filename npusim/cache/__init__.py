"""Caches: an exact simulator, and stack distances that answer for all capacities at once.

Both are loops over every access, compiled by numba when first called
(``pip install 'npusim[cache]'``).
"""

from npusim.cache.corrections import (
    hit_chances,
    hit_rate_random,
    hit_rate_set_associative,
    hit_rate_srrip,
)
from npusim.cache.distance import Profile, profile, stack_distances
from npusim.cache.simulator import Cache, Traffic, simulate

__all__ = [
    "Cache",
    "Profile",
    "Traffic",
    "hit_chances",
    "hit_rate_random",
    "hit_rate_set_associative",
    "hit_rate_srrip",
    "profile",
    "simulate",
    "stack_distances",
]
