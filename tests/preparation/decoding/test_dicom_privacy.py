from __future__ import annotations

import logging
import random
import traceback
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from vissl_jointssl.preparation.decoding.dicom import (
    group_series,
    read_dicom_file,
    read_dicom_series,
    series_faults,
)
from vissl_jointssl.preparation.errors import ReadError
from vissl_jointssl.preparation.pictures import read_mask, read_picture

NAME, NUMBER, BIRTH, UID = "PLANTEDNAME", "4711081599", "19310207", "1.2.9988776655"
KEYWORDS = (
    "ImagePositionPatient ImageOrientationPatient PixelSpacing RescaleSlope RescaleIntercept GantryDetectorTilt "
    "WindowCenter WindowWidth NumberOfFrames SpacingBetweenSlices Modality PhotometricInterpretation ImageType "
    "VOILUTFunction SOPClassUID DoseGridScaling GridFrameOffsetVector SeriesInstanceUID"
)
TRACES = (NAME, NUMBER, BIRTH, "9988776655")
PLANE = np.random.default_rng(0).integers(0, 4000, (8, 8)).astype(np.uint16)


def _planted(save_slice, folder):
    """A series with a patient in every tag that takes text, also where the readers look."""
    item = Dataset()
    item.PatientName, item.PatientID, item.RequestedProcedureDescription = NAME, NUMBER, NAME
    for k in range(3):
        save_slice(
            folder / f"{k}",
            PLANE,
            PatientName=f"{NAME}^JANE",
            PatientID=NUMBER,
            PatientBirthDate=BIRTH,
            StudyDescription=f"{NAME} chest",
            ImageComments=NAME * 20,
            SeriesDescription=NAME,
            SeriesInstanceUID=UID,
            StudyInstanceUID=UID,
            InstitutionName=NAME,
            ImageType=["ORIGINAL", "PRIMARY", NAME],
            RequestAttributesSequence=[item],
            ImagePositionPatient=[0, 0, k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    return folder


def _everything(folder):
    """Every word that the readers say about a folder: results without voxels, errors, warnings and logs."""
    first = sorted(folder.iterdir())[0]
    doings = (
        lambda: group_series(folder.iterdir()),
        lambda: series_faults(folder),
        lambda: read_dicom_series(folder),
        lambda: read_dicom_series(folder, list(folder.iterdir())),
        lambda: read_dicom_file(first),
        lambda: read_picture(first),
        lambda: read_mask(first, (8, 8)),
    )
    for doing in doings:
        try:
            result = doing()
        except ReadError as error:
            yield "".join(traceback.format_exception(error))  # what stood before it must not show either
        else:
            yield repr(result) if isinstance(result, list) else ""
            yield repr([getattr(result, name, "") for name in ("notes", "modality")])


@pytest.fixture
def listening(caplog, capfd):
    """All that leaves the process through logs, warnings and streams."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: caplog.text + "".join(str(warning.message) for warning in caught) + "".join(capfd.readouterr())


def _assert_silent(said):
    for trace in TRACES:
        assert trace not in said


def test_a_sound_series_says_nothing_of_its_patient(tmp_path, save_slice, listening):
    folder = _planted(save_slice, tmp_path / "series")
    assert read_dicom_series(folder).array.shape == (8, 8, 3)
    _assert_silent(" ".join(_everything(folder)) + listening())


@pytest.mark.parametrize("keyword", KEYWORDS.split())
def test_a_name_where_a_number_or_code_belongs_is_not_repeated(tmp_path, save_slice, monkeypatch, listening, keyword):
    folder = _planted(save_slice, tmp_path / "series")
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    value = f"{NAME} {NUMBER} ".encode()
    tag = Tag(tag_for_keyword(keyword))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in folder.iterdir():
            header = pydicom.dcmread(file)
            header[keyword] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
            header.save_as(file)
    assert value in file.read_bytes()
    _assert_silent(" ".join(_everything(folder)) + listening())


def test_damage_anywhere_in_a_header_makes_nothing_of_it_appear(tmp_path, save_slice, listening):
    folder = _planted(save_slice, tmp_path / "series")
    victim = sorted(folder.iterdir())[1]
    whole = victim.read_bytes()
    words = []
    for seed in range(30):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 10))):
            data[rng.randrange(128, len(data) - 130)] = rng.randrange(256)
        victim.write_bytes(bytes(data))
        words += _everything(folder)
    _assert_silent(" ".join(words) + listening())
