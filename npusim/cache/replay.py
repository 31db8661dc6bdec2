"""The compiled loop of the cache simulator: one access after another through cache and victim.

A resident line is one word, of 64 bits or, where the tags fit, of 32, so that all that is known of
it moves together:

    tag | re-reference prediction (2 bits) | dirty, a bit a sector | valid, a bit a sector

and -1 where there is none. A cache is either rows of ways that are scanned (the newest first, for
LRU) or, fully associative, a linked list from the newest to the oldest beside a hash table.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Whole: TypeAlias = int | np.int64
Words = NDArray[np.int64]
Random = NDArray[np.uint64]
Slots = NDArray[np.int32]

LRU, RANDOM, SRRIP = 0, 1, 2
MAIN, VICTIM, MEMORY = 0, 1, 2
WORD, CHAIN, NEWER, OLDER = 0, 1, 2, 3
USED, FREE = WORD, CHAIN  # of the tie
READ, WRITTEN = 0, 1
ABSENT = -1

MIX_1, MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
HALF_WORD, FOLD = np.uint64(32), np.uint64(33)


class Geometry(NamedTuple):
    """The shape of a simulated cache: sizes [B], counts, and switches as 0 or 1."""

    line: int
    line_bits: int  # the logarithm of the line, or -1 if it is no power of two
    sector: int
    sectors: int  # of a line
    sets: int
    ways: int  # 0: fully associative
    first: int  # the lowest line number, which has tag 0
    policy: int
    hashed: int
    write_back: int


def listed(count: int) -> tuple[Words, Slots]:
    """Return room for fully associative lines, none of them resident, and their hash buckets.

    A row a slot: the line's word, the next slot of the same bucket, the newer and the older slot.
    The last row ties both ends of the list; how many slots were ever used, and the first of those
    that are free again, stand where it has no line.
    """
    rows = np.full((count + 1, 4), ABSENT, np.int64)
    rows[count] = 0, ABSENT, count, count
    return rows, np.full(1 << max(2 * count - 1, 0).bit_length(), ABSENT, np.int32)


def mixed(number: Whole) -> np.uint64:
    """Return 64 well-mixed bits of a number: the finalizer of MurmurHash3 (A. Appleby)."""
    h = np.uint64(number)
    h = (h ^ (h >> FOLD)) * MIX_1
    h = (h ^ (h >> FOLD)) * MIX_2
    return h ^ (h >> FOLD)


def scaled(bits: np.uint64, count: Whole) -> Whole:
    """Return an integer in 0..count-1 that is as evenly spread as the upper half of the bits."""
    return np.int64(((bits >> HALF_WORD) * np.uint64(count)) >> HALF_WORD)


def drawn(random: Random, count: Whole) -> Whole:
    """Return the next random integer in 0..count-1 (xorshift64*, doi:10.1145/2845077)."""
    x = random[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    random[0] = x
    return scaled(x * np.uint64(0x2545F4914F6CDD1D), count)


# ---------------------------------------------------------------- rows of ways


def row_find(words: Any, start: Whole, ways: Whole, tag: Whole, shift: Whole) -> Whole:
    """Return the slot of a tag in the row that begins at `start`, or -1."""
    for slot in range(start, start + ways):
        if words[slot] >> shift == tag:
            return slot
    return ABSENT


def row_front(words: Any, start: Whole, ways: Whole, tag: Whole, shift: Whole) -> Whole:
    """Move a row up by one, as far as a tag or off its end, and return the word that makes room.

    Looking for a line and moving it to the front is one pass: what is returned is the line, or,
    where it is not there, the oldest. The front is left to be written.
    """
    carried = words[start]
    for place in range(start + 1, start + ways):
        if carried >> shift == tag:
            break
        word = words[place]
        words[place] = carried
        carried = word
    return np.int64(carried)


def row_random(words: Any, start: Whole, ways: Whole, random: Random) -> Whole:
    """Return the first empty slot of a row, or a random one; rows fill from the left."""
    if words[start + ways - 1] != ABSENT:
        return start + drawn(random, ways)
    slot: Whole = start
    while words[slot] != ABSENT:
        slot += 1
    return slot


def row_distant(words: Any, start: Whole, ways: Whole, shift: Whole) -> Whole:
    """Return the leftmost slot whose prediction is 3, all aged until there is one.

    An empty slot, all of whose bits are set, reads as 3.
    """
    slot, highest = start, np.int64(ABSENT)
    for place in range(start, start + ways):
        prediction = (words[place] >> (shift - 2)) & 3
        if prediction > highest:
            slot, highest = place, prediction
    if highest < 3:
        for place in range(start, start + ways):
            words[place] += (3 - highest) << (shift - 2)
    return slot


# ---------------------------------------------------------------- a list, newest to oldest


def bucket(heads: Slots, tag: Whole) -> Whole:
    """Return the hash bucket of a tag."""
    return np.int64(mixed(tag) & np.uint64(heads.size - 1))


def list_find(rows: Words, heads: Slots, tag: Whole, shift: Whole) -> Whole:
    """Return the slot of a tag, or -1."""
    slot = np.int64(heads[bucket(heads, tag)])
    while slot >= 0 and rows[slot, WORD] >> shift != tag:
        slot = rows[slot, CHAIN]
    return slot


def list_push(rows: Words, slot: Whole) -> None:
    """Make a slot that is in no list the newest."""
    tie = rows.shape[0] - 1
    newest = rows[tie, OLDER]
    rows[slot, NEWER] = tie
    rows[slot, OLDER] = newest
    rows[newest, NEWER] = slot
    rows[tie, OLDER] = slot


def list_unlink(rows: Words, slot: Whole) -> None:
    """Take a slot out of the list."""
    newer, older = rows[slot, NEWER], rows[slot, OLDER]
    rows[newer, OLDER] = older
    rows[older, NEWER] = newer


def list_forget(rows: Words, heads: Slots, slot: Whole, shift: Whole) -> Whole:
    """Take a slot out of the list and its tag out of the hash table; return its word."""
    list_unlink(rows, slot)
    home = bucket(heads, rows[slot, WORD] >> shift)
    before = np.int64(heads[home])
    if before == slot:
        heads[home] = rows[slot, CHAIN]
    else:
        while rows[before, CHAIN] != slot:
            before = rows[before, CHAIN]
        rows[before, CHAIN] = rows[slot, CHAIN]
    return np.int64(rows[slot, WORD])


def list_remove(rows: Words, heads: Slots, slot: Whole, shift: Whole) -> None:
    """Take a line out and leave its slot free."""
    tie = rows.shape[0] - 1
    list_forget(rows, heads, slot, shift)
    rows[slot, WORD] = ABSENT
    rows[slot, CHAIN] = rows[tie, FREE]
    rows[tie, FREE] = slot


def list_insert(rows: Words, heads: Slots, word: Whole, policy: Whole, shift: Whole,
                random: Random) -> Whole:  # fmt: skip
    """Put a line in as the newest; return the word of the one it replaces, or -1."""
    tie = rows.shape[0] - 1
    last: Whole = np.int64(ABSENT)
    slot = rows[tie, FREE]
    if slot >= 0:
        rows[tie, FREE] = rows[slot, CHAIN]
    elif rows[tie, USED] < tie:
        slot = rows[tie, USED]
        rows[tie, USED] += 1
    else:
        slot = np.int64(drawn(random, tie)) if policy == RANDOM else rows[tie, NEWER]
        last = list_forget(rows, heads, slot, shift)
    home = bucket(heads, word >> shift)
    rows[slot, WORD] = word
    rows[slot, CHAIN] = heads[home]
    heads[home] = slot
    list_push(rows, slot)
    return last


# ---------------------------------------------------------------- both together


def dirty_sectors(word: Whole, sectors: Whole) -> Whole:
    """Return how many sectors of a line are dirty."""
    bits = (word >> sectors) & ((1 << sectors) - 1)
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


def placed(address: Whole, shape: Geometry) -> tuple[Whole, Whole]:
    """Return the line of an address, and the bit of its sector; divisions are what takes long."""
    number = address >> shape.line_bits if shape.line_bits >= 0 else address // shape.line
    if shape.sectors == 1:
        return number, np.int64(1)
    return number, np.int64(1) << ((address - number * shape.line) // shape.sector)


def row_of(number: Whole, shape: Geometry) -> Whole:
    """Return the first slot of the row where a line belongs; 0 where there are no rows."""
    if shape.hashed:
        return scaled(mixed(number), shape.sets) * shape.ways
    return np.int64((number % shape.sets) * shape.ways)


def find(main: Any, full: Words, heads: Slots, start: Whole, tag: Whole, shape: Geometry,
         shift: Whole) -> Whole:  # fmt: skip
    """Return the slot of a tag in the cache, or -1."""
    if shape.ways == 0:
        return list_find(full, heads, tag, shift)
    return row_find(main, start, shape.ways, tag, shift)


def keep(main: Any, full: Words, start: Whole, slot: Whole, word: Whole, moves: bool,
         shape: Geometry, shift: Whole) -> None:  # fmt: skip
    """Write back a resident line that was used, and note the use if that moves it."""
    if shape.ways == 0:
        full[slot, WORD] = word
        if moves:
            list_unlink(full, slot)
            list_push(full, slot)
    elif moves and shape.policy == LRU:
        row_front(main, start, shape.ways, word >> shift, shift)
        main[start] = word
    else:
        main[slot] = word & ~(3 << (shift - 2)) if moves else word


def admit(main: Any, full: Words, heads: Slots, start: Whole, word: Whole, shape: Geometry,
          shift: Whole, random: Random) -> Whole:  # fmt: skip
    """Put a line into the cache; return the word of the one it replaces, or -1."""
    if shape.ways == 0:
        return list_insert(full, heads, word, shape.policy, shift, random)
    if shape.policy == RANDOM:
        slot = row_random(main, start, shape.ways, random)
    else:
        slot = row_distant(main, start, shape.ways, shift)
        word = (word & ~(3 << (shift - 2))) | (2 << (shift - 2))
    last = np.int64(main[slot])
    main[slot] = word
    return last


def replay(  # noqa: PLR0912, PLR0915  (what passes between its parts is all there is)
    addresses: Words, writes: NDArray[np.bool_], bypass: NDArray[np.bool_], shape: Geometry,
    main: Any, full: Words, heads: Slots, victim: Words, victim_heads: Slots,
    random: Random, levels: NDArray[np.uint8], traffic: Words,
) -> None:  # fmt: skip
    """Run the accesses; fill in where each was served and the sectors read and written."""
    shift = 2 * shape.sectors + 2
    spares = victim.shape[0] > 1
    for i in range(addresses.size):
        number, bit = placed(addresses[i], shape)
        tag = number - shape.first
        write = writes.size > 0 and writes[i]
        streams = bypass.size > 0 and bypass[i]
        allocates = not streams and (shape.write_back == 1 or not write)

        start = row_of(number, shape)
        in_front = shape.ways > 0 and shape.policy == LRU and allocates
        last: Whole = ABSENT
        spare: Whole = ABSENT
        word = tag << shift
        if in_front:
            last = row_front(main, start, shape.ways, tag, shift)
            slot = start if last >> shift == tag else np.int64(ABSENT)
        else:
            slot = find(main, full, heads, start, tag, shape, shift)
        if slot >= 0:
            word = last if in_front else np.int64(main[slot]) if shape.ways else full[slot, WORD]
        elif spares:
            spare = list_find(victim, victim_heads, tag, shift)
            if spare >= 0:
                word = victim[spare, WORD]

        level = MEMORY
        if word & bit:
            level = MAIN if slot >= 0 else VICTIM
        elif not write:
            traffic[READ] += 1
        if allocates:
            word |= bit
        if write:
            if shape.write_back == 1 and (allocates or level != MEMORY):
                word |= bit << shape.sectors
            else:
                traffic[WRITTEN] += 1
        levels[i] = level

        if slot >= 0:
            keep(main, full, start, slot, word, not streams and not in_front, shape, shift)
        elif allocates:
            if spare >= 0:
                list_remove(victim, victim_heads, spare, shift)
            if in_front:
                main[start] = word
            else:
                last = admit(main, full, heads, start, word, shape, shift, random)
            if last >= 0 and spares:
                last = list_insert(victim, victim_heads, last, LRU, shift, random)
            if last >= 0:
                traffic[WRITTEN] += dirty_sectors(last, shape.sectors)
        elif spare >= 0:
            victim[spare, WORD] = word


HELPERS = (
    mixed, scaled, drawn, row_find, row_front, row_random, row_distant, bucket, list_find,
    list_push, list_unlink, list_forget, list_remove, list_insert, dirty_sectors, placed, row_of,
    find, keep, admit,
)  # fmt: skip
