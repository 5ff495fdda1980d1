from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from vissl_jointssl.preparation.decoding.dicom_xray import read_dicom_image
from vissl_jointssl.preparation.errors import ReadError

MANY = 2**20
RAMP = (np.arange(4096, dtype=np.uint16)).reshape(64, 64)


def _shown(path):
    array, modality, notes = read_dicom_image(path, MANY)
    assert array.dtype == np.uint16
    return array.astype(int), modality, notes


def _table(descriptor, values):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", "US", values)
    return item


def test_without_a_window_the_full_range_is_stretched_and_monochrome1_turned_round(tmp_path, save_slice):
    bright, modality, notes = _shown(save_slice(tmp_path / "a", RAMP, Modality="DX"))
    np.testing.assert_array_equal(bright.ravel(), np.rint(np.arange(4096) / 4095 * 65535))
    assert (modality, notes) == ("XR", ())
    dark, _, _ = _shown(save_slice(tmp_path / "b", RAMP, Modality="DX", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(dark, 65535 - bright)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_those_of_pydicom_after_rescaling(tmp_path, save_slice, function, photometric):
    path = save_slice(
        tmp_path / "a",
        RAMP,
        Modality="CR",
        RescaleSlope=2,
        RescaleIntercept=-500,
        WindowCenter=[1200, 9],
        WindowWidth=[900, 9],
        VOILUTFunction=function,
        BitsStored=12,
        PhotometricInterpretation=photometric,
    )
    header = pydicom.dcmread(path)
    expected = pydicom.pixels.apply_windowing(pydicom.pixels.apply_rescale(header.pixel_array, header), header)
    shares = (expected + 500) / (4095 * 2)  # pydicom spans the rescaled range of the stored bits, -500 to 7690
    if photometric == "MONOCHROME1":
        shares = 1 - shares
    np.testing.assert_allclose(_shown(path)[0] / 65535, shares, atol=1e-4)


def test_the_linear_window_follows_the_standard_at_every_value(tmp_path, save_slice):
    path = save_slice(tmp_path / "a", RAMP, WindowCenter=2048, WindowWidth=1000)
    for value, shown in zip(RAMP.ravel(), _shown(path)[0].ravel(), strict=True):
        if value <= 2048 - 0.5 - 999 / 2:  # PS3.3 C.11.2.1.2.1
            expected = 0.0
        elif value > 2048 - 0.5 + 999 / 2:
            expected = 65535.0
        else:
            expected = ((value - 2047.5) / 999 + 0.5) * 65535
        assert shown == round(expected)


def test_tables_of_the_modality_and_of_interest_are_looked_up_in_turn(tmp_path, save_slice):
    stored = np.arange(10, 42, dtype=np.uint16).reshape(4, 8)
    modality = _table([16, 20, 16], [5 * k for k in range(16)])  # 20 to 35 become 0 to 75, the others the ends
    interest = _table([76, 0, 8], [min(3 * k, 255) for k in range(76)])
    path = save_slice(tmp_path / "a", stored, Modality="DX", ModalityLUTSequence=[modality], VOILUTSequence=[interest])
    for value, shown in zip(stored.ravel(), _shown(path)[0].ravel(), strict=True):
        looked_up = 5 * min(max(int(value) - 20, 0), 15)
        assert shown == round(min(3 * looked_up, 255) / 255 * 65535)


def test_a_table_may_begin_below_zero_and_comes_as_bytes_from_implicit_files(tmp_path, save_slice):
    stored = np.arange(-8, 8, dtype=np.int16).reshape(4, 4)
    path = save_slice(
        tmp_path / "a", stored, VOILUTSequence=[_table([16, 65536 - 8, 16], [4096 * k for k in range(16)])]
    )
    expected = np.rint(np.arange(16) * 4096 / 65535 * 65535)
    np.testing.assert_array_equal(_shown(path)[0].ravel(), expected)
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    header.save_as(path, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(_shown(path)[0].ravel(), expected)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count_for_the_range(tmp_path, save_slice, photometric):
    plane = RAMP % 100 + 1000
    plane[0] = 65535
    path = save_slice(tmp_path / "a", plane, PixelPaddingValue=65535, PhotometricInterpretation=photometric)
    shown = _shown(path)[0]
    assert (shown[0] == 0).all()
    assert (shown[1:].min(), shown[1:].max()) == (0, 65535)


@pytest.mark.parametrize("window", [(90000, 10), (-5, 3)])
def test_a_window_that_shows_nothing_is_passed_over_and_said(tmp_path, save_slice, window):
    path = save_slice(tmp_path / "a", RAMP, WindowCenter=window[0], WindowWidth=window[1])
    array, _, notes = _shown(path)
    assert notes == ("its window shows nothing, the full range is taken",)
    assert (array.min(), array.max()) == (0, 65535)


@pytest.mark.parametrize(("width", "value"), [(0, None), (-4, None), (None, 5)])
def test_half_a_window_is_none(tmp_path, save_slice, width, value):
    path = save_slice(tmp_path / "a", RAMP, WindowCenter=value, WindowWidth=width)
    assert _shown(path)[0].max() == 65535


@pytest.mark.parametrize(
    ("modality", "expected"), [("CR", "XR"), ("RF", "XR"), ("MG", "MG"), ("US", "US"), ("DOE^JANE", None), ("", None)]
)
def test_x_rays_are_called_xr_mammograms_mg_and_unknown_words_nothing(tmp_path, save_slice, modality, expected):
    assert _shown(save_slice(tmp_path / "a", RAMP, Modality=modality))[1] == expected


def test_colours_have_8_bits(tmp_path, save_slice):
    colour = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_dicom_image(save_slice(tmp_path / "a", colour), MANY)[0], colour)
    deep = colour.astype(np.uint16) * 16
    array, _, _ = read_dicom_image(save_slice(tmp_path / "b", deep, BitsStored=12), MANY)
    np.testing.assert_array_equal(array, colour)


def test_constant_films_and_broken_rescaling_are_refused(tmp_path, save_slice):
    with pytest.raises(ReadError, match="every pixel is 7") as caught:
        read_dicom_image(save_slice(tmp_path / "a", np.full((4, 4), 7, np.uint8)), MANY)
    assert caught.value.code == "constant"
    with pytest.raises(ReadError, match="holds 3 frames, not one image") as caught:
        read_dicom_image(save_slice(tmp_path / "b", RAMP.reshape(4, 32, 32)[:3]), MANY)
    assert caught.value.code == "dimensions"
    with pytest.raises(ReadError, match="no usable number"):
        read_dicom_image(save_slice(tmp_path / "c", RAMP, RescaleSlope=0), MANY)
    broken = _table([99, 0, 8], [1, 2, 3])
    with pytest.raises(ReadError, match=r"its header cannot be used \(ValueError\)"):
        read_dicom_image(save_slice(tmp_path / "d", RAMP, VOILUTSequence=[broken]), MANY)
