from __future__ import annotations

import io

import numpy as np
import pytest

from vissl_jointssl.preparation.decoding.limits import (
    MAX_BYTES,
    MAX_VOXELS,
    check_claim,
    check_length,
    check_packed,
    read_voxels,
)
from vissl_jointssl.preparation.errors import ReadError


@pytest.mark.parametrize(
    ("shape", "itemsize", "code", "words"),
    [
        ((2**31, 1, 1), 1, "too_large", r"claims 2147483648 x 1 x 1 voxels of 1 bytes, and at most 1073741824"),
        ((2**40, 2**40, 2**40), 2, "too_large", "cut it to smaller volumes"),
        ((1024, 1024, 1024), 8, "too_large", "at most 1073741824 or 4294967296 bytes are read"),
        ((4, -3, 2), 2, "unreadable", r"claims a negative size \(4 x -3 x 2\)"),
        ((4, 0, 2), 2, "empty", r"holds no voxel \(4 x 0 x 2\)"),
        ((1,) * 9, 2, "unreadable", "claims to have 9 axes"),
    ],
)
def test_claims_that_no_scan_makes_are_refused(tmp_path, shape, itemsize, code, words):
    with pytest.raises(ReadError, match=words) as caught:
        check_claim(tmp_path / "a.nii", shape, itemsize)
    assert caught.value.code == code


def test_the_largest_claim_that_is_read_counts_its_bytes(tmp_path):
    assert check_claim(tmp_path, (1024, 1024, 1024), 4) == MAX_VOXELS * 4 == MAX_BYTES


def test_a_file_holds_at_least_what_it_promises(tmp_path):
    check_length(tmp_path, 10, 10)
    with pytest.raises(ReadError, match="is cut short: 9 of the 10 bytes that its header promises are there"):
        check_length(tmp_path, 10, 9)
    check_packed(tmp_path, 1032 * 7, 7)
    with pytest.raises(ReadError, match="7 packed bytes cannot hold the 7225 that its header promises"):
        check_packed(tmp_path, 1032 * 7 + 1, 7)


def test_zlib_packs_no_better_than_the_bound_says():
    import zlib

    packed = zlib.compress(bytes(2**24), 9)
    assert 1000 < 2**24 / len(packed) < 1032


def test_a_stream_gives_what_is_promised_and_ends_soon_after(tmp_path):
    content = np.random.default_rng(0).integers(0, 255, 3 * 2**20 + 5, dtype=np.uint8)
    np.testing.assert_array_equal(read_voxels(tmp_path, io.BytesIO(content.tobytes()), len(content)), content)
    padded = io.BytesIO(content.tobytes() + bytes(512))
    np.testing.assert_array_equal(read_voxels(tmp_path, padded, len(content)), content)
    with pytest.raises(ReadError, match="is cut short: 3145733 of the 3145734 bytes"):
        read_voxels(tmp_path, io.BytesIO(content.tobytes()), len(content) + 1)
    endless = io.BytesIO(bytes(20 * 2**20))
    with pytest.raises(ReadError, match=r"goes on for more than 1048576 bytes after the 100 that") as caught:
        read_voxels(tmp_path, endless, 100)
    assert caught.value.code == "too_large"
    assert endless.tell() < 4 * 2**20
