"""Names, ids and birth dates of headers, planted wherever a format has room for text, must not come out anywhere."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SECRETS = ("ZQXPATIENT", "ZQX-4711-ID", "19470229", "ZQXCLINIC")  # name, id, birth date, place
ALL = "^".join(SECRETS)


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) * 7919 % 251).reshape(shape)


def plant_dicom(path: Path, number: int = 0, **changes: object) -> Path:
    """A CT slice with the secrets in every tag that a person or a place has, and in tags that are read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number + 1}"
    header = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.826.0.2", changes.pop("series", "1.2.826.0.3")
    header.PatientName, header.PatientID, header.PatientBirthDate = SECRETS[0], SECRETS[1], SECRETS[2]
    header.OtherPatientNames = header.ReferringPhysicianName = header.OperatorsName = SECRETS[0]
    header.InstitutionName = header.StationName = header.ManufacturerModelName = SECRETS[3]
    header.AccessionNumber = SECRETS[1]
    header.StudyDescription = header.SeriesDescription = header.ProtocolName = header.PatientComments = ALL
    header.Modality = "CT"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.Rows, header.Columns = 8, 9
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [0, 0, 2.0 * number]
    header.PixelSpacing, header.SliceThickness = [1, 1], 2
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.RescaleIntercept, header.RescaleSlope = -500, 1
    header.PixelData = (ramp(8, 9) * (number + 3)).astype("<i2").tobytes()
    header.private_block(0x0099, "ZQXPATIENT", create=True).add_new(1, "LO", ALL)
    for name, value in changes.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    return path


def damage(path: Path, value: bytes, instead: bytes) -> None:
    data = path.read_bytes()
    assert value in data
    path.write_bytes(data.replace(value, instead, 1))


def plant_all(folder: Path) -> None:
    """Sound and damaged files of every format; names of files and folders are those of patients as well."""
    ct = folder / "ZQXPATIENT_ct"
    for number in range(4):
        plant_dicom(ct / f"ZQXPATIENT-{number}.dcm", number)
    for number in range(4):  # a secret where a number, a word or a code is expected
        plant_dicom(folder / "ZQXPATIENT_gap" / f"{number}.dcm", number + 3 * (number == 3), series="1.2.826.0.4")
        plant_dicom(folder / "odd_modality" / f"{number}.dcm", number, series="1.2.826.0.5", Modality="ZQXPATIENT")
        plant_dicom(folder / "odd_photometry" / f"{number}.dcm", number, series="1.2.826.0.6")
        plant_dicom(folder / "odd_numbers" / f"{number}.dcm", number, series="1.2.826.0.7")
        plant_dicom(folder / "odd_vr" / f"{number}.dcm", number, series="1.2.826.0.8")
        plant_dicom(
            folder / "odd_type" / f"{number}.dcm", number, series="1.2.826.0.9", ImageType=[SECRETS[0], "LOCALIZER"]
        )
        damage(folder / "odd_photometry" / f"{number}.dcm", b"MONOCHROME2", b"ZQXPATIENT ")
        damage(folder / "odd_numbers" / f"{number}.dcm", b"1.0\\0.0\\0.0", b"ZQXPATIENT0")
        damage(folder / "odd_vr" / f"{number}.dcm", b"\x10\0\x10\0PN", b"\x10\0\x10\0DS")
    plant_dicom(folder / "xray" / "a.dcm", Modality="DX", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1")
    cut = plant_dicom(folder / "cut" / "a.dcm", 1, series="1.2.826.0.10")
    cut.write_bytes(cut.read_bytes()[:-40])

    image = nibabel.Nifti1Image(ramp(6, 7, 8).astype(np.int16), np.diag([1.0, 1, 1, 1]))
    for field in ("descrip", "db_name", "intent_name", "aux_file"):
        image.header[field] = SECRETS[0].encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", ALL.encode()))
    nibabel.save(image, folder / "ZQXPATIENT.nii.gz")
    nibabel.save(image, folder / "half.nii")
    (folder / "half.nii").write_bytes((folder / "half.nii").read_bytes()[:600])
    (folder / "odd_magic.nii").write_bytes(ALL.encode() * 20)

    scan = SimpleITK.GetImageFromArray(ramp(6, 7, 8).astype(np.int16))
    for key in ("ZQXPATIENT", "PatientName", "Comment"):
        scan.SetMetaData(key, ALL)
    SimpleITK.WriteImage(scan, folder / "a.nrrd")
    SimpleITK.WriteImage(scan, folder / "b.mha")
    (folder / "half.nrrd").write_bytes((folder / "a.nrrd").read_bytes()[:-200])
    text = (folder / "a.nrrd").read_bytes()
    (folder / "odd.nrrd").write_bytes(text.replace(b"type: short", b"type: ZQXPATIENT", 1))
    (folder / "odd.mhd").write_text(
        f"ObjectType = Image\nNDims = {ALL}\nDimSize = 2 2 2\nElementDataFile = {ALL}.raw\n"
    )

    grey = Image.fromarray(ramp(20, 24).astype(np.uint8))
    info = PngInfo()
    info.add_text("Patient", ALL)
    info.add_itxt("ZQXPATIENT", ALL, zip=True)
    grey.save(folder / "a.png", pnginfo=info)
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:-30])
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x9286] = ALL, SECRETS[0], ALL.encode()
    grey.save(folder / "b.jpg", exif=exif, comment=ALL.encode())
    exif[0x0112] = 6  # turned
    grey.save(folder / "c.jpg", exif=exif)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[315], tags[305] = ALL, SECRETS[0], SECRETS[3]
    grey.save(folder / "d.tiff", tiffinfo=tags)
    np.savez(folder / "e.npz", **{SECRETS[0]: ramp(5, 6, 7).astype(np.float32)})
    np.save(folder / "f.npy", np.array([{"name": ALL}] * 8, dtype=object).reshape(2, 2, 2), allow_pickle=True)
    (folder / "label.csv").write_text(ALL)


def forms_of(secret: str) -> list[bytes]:
    """A secret as it may be written: in other letters and encodings."""
    plain = secret.encode()
    forms = [plain, plain.lower(), secret.encode("utf-16-le"), base64.b64encode(plain)[:12], plain.hex().encode()]
    return [*forms, secret.title().encode()]


def leaks_in(data: bytes) -> list[str]:
    return [secret for secret in SECRETS if any(form in data for form in forms_of(secret))]


@pytest.mark.parametrize("image_form", ["decoded", "original"])
def test_no_text_of_a_header_comes_out_anywhere(tmp_path, image_form):
    plant_all(tmp_path / "in")
    if image_form == "original":  # which is about images alone
        for path in (tmp_path / "in").iterdir():
            if path.is_dir():
                shutil.rmtree(path)
    arguments = [sys.executable, "-m", "vissl_jointssl.cli", "prepare", "in", "--out", "out", "--keep-going"]
    arguments += ["--image-form", image_form]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONWARNINGS": "always"})
    log = (run.stdout + run.stderr).decode(errors="replace")
    assert run.returncode == 0, log
    assert "Traceback" not in log
    for file in (tmp_path / "out").rglob("*"):
        assert not leaks_in(os.fsencode(file.name)), file.name
        if file.is_file():
            assert not leaks_in(file.read_bytes()), file.name
    without_paths = log
    for path in sorted((tmp_path / "in").rglob("*"), key=lambda one: -len(str(one))):
        for name in (str(path), str(path.relative_to(tmp_path)), str(path.relative_to(tmp_path / "in")), path.name):
            without_paths = without_paths.replace(name, "")
    lines = [line for line in without_paths.splitlines() if leaks_in(line.encode())]
    assert [line for line in lines if "scan/s" not in line] == []  # the bar shows the ends of paths
    assert "in/odd_magic.nii: " in log  # the damaged ones were looked at, and are in the log by path
    assert "in/half.nrrd: " in log


def test_the_search_finds_what_is_planted(tmp_path):
    plant_all(tmp_path / "in")
    assert leaks_in((tmp_path / "in" / "ZQXPATIENT_ct" / "ZQXPATIENT-0.dcm").read_bytes()) == list(SECRETS)
    assert leaks_in((tmp_path / "in" / "b.jpg").read_bytes()) == list(SECRETS)
    assert leaks_in((tmp_path / "in" / "d.tiff").read_bytes()) == list(SECRETS)
    assert leaks_in((tmp_path / "in" / "a.png").read_bytes()) == list(SECRETS)
    assert leaks_in(b"..." + base64.b64encode(b"ZQXPATIENT")) == [SECRETS[0]]
