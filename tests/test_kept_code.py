"""Compiled code that is kept on disk: where the disk is full or it is damaged, nobody notices."""

import errno
import os

import numpy as np
import pytest

from npusim.cache import compiled, slots

numba = pytest.importorskip("numba")


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """Number a stream by a kernel as a new process has it: compiled, or from what is kept."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def run():
        stream = np.array([7, 8, 7, 9, 8])
        ids = np.empty(5, np.int32)
        kernel = compiled._compiled.__wrapped__(slots.number_near, ())
        return kernel(stream, 7, np.full(3, slots.UNUSED, np.int32), ids), ids.tolist()

    return run


@pytest.mark.parametrize("spoil", [lambda f: os.truncate(f, 0), lambda f: os.truncate(f, 100),
                                   lambda f: f.write_bytes(b"x" * 999)])  # fmt: skip
@pytest.mark.parametrize("which", ["*.nbi", "*.nbc"])
def test_what_is_kept_may_be_damaged(numbered, tmp_path, which, spoil):
    expected = numbered()
    assert expected == (3, [0, 1, 0, 2, 1])
    (file,) = tmp_path.rglob(which)
    spoil(file)
    assert numbered() == expected


def test_there_may_be_no_room_to_keep_it(numbered, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)
    assert numbered() == (3, [0, 1, 0, 2, 1])
