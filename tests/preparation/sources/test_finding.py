from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from vissl_jointssl.preparation.decoding.dicom import read_dicom_series
from vissl_jointssl.preparation.errors import PreparationError, ReadError
from vissl_jointssl.preparation.recipe import Recipe
from vissl_jointssl.preparation.sources.finding import find, find_sources
from vissl_jointssl.preparation.splitting import hash_patient

CUBE = np.arange(27).reshape(3, 3, 3)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def labels_of(root: Path) -> dict[str, str | None]:
    return {source.path: source.label_path for source in find_sources(root)}


def save_object(path: Path, modality: str, shape: tuple[int, ...] | None = (4, 4), **tags: object) -> Path:
    """One DICOM file: an X-ray without a position, of more axes a film, or without a shape a report."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid(), generate_uid()
    data.Modality, data.PatientName = modality, "DOE^JANE"
    if shape is not None:
        data.Rows, data.Columns = shape[-2:]
        data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 16, 16, 15
        data.PixelRepresentation, data.PhotometricInterpretation = 0, "MONOCHROME2"
        data.PixelData = np.arange(np.prod(shape), dtype=np.uint16).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def said(caplog) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_scans_series_and_images_are_found_and_the_rest_is_passed_over(tmp_path, save_dicom):
    touch(
        tmp_path, "jane/ct.nii.gz", "jane/old/mr.NII", "x.mha", ".hidden.nii", ".trash/y.nii", "notes.txt", "out/z.nii"
    )
    save_dicom(tmp_path / "john" / "series", CUBE)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.png")
    found = find_sources(tmp_path, "CT", skip=tmp_path / "out")
    assert [(source.path, source.kind, source.modality) for source in found] == [
        ("jane/ct.nii.gz", "volume", "CT"),
        ("jane/old/mr.NII", "volume", "CT"),
        ("john/series", "volume", "CT"),
        ("x.mha", "volume", "CT"),
        ("x.png", "image", None),
    ]
    patients = [source.patient for source in found]
    assert patients == [hash_patient(name) for name in ("jane", "jane", "john", "x", "x")]
    assert len({source.id for source in found}) == 5


def test_every_format_is_found_by_suffix_in_any_case(tmp_path):
    volumes = ["a.nii", "b.nii.gz", "c.MHA", "d.mhd", "e.nrrd", "f.nhdr", "g.Nii.Gz"]
    images = ["h.png", "i.JPG", "j.jpeg", "k.tif", "l.tiff", "m.bmp"]
    touch(tmp_path, *volumes, *images)
    assert {source.path: source.kind for source in find_sources(tmp_path)} == dict.fromkeys(
        volumes, "volume"
    ) | dict.fromkeys(images, "image")


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((5, 6), "uint16", "image"),
        ((5, 6, 3), "uint8", "image"),
        ((5, 6, 3), "int16", "volume"),
        ((5, 6, 7), "uint8", "volume"),
        ((2, 5, 6, 7), "float32", "volume"),
    ],
)
def test_the_header_of_an_array_tells_images_from_volumes(tmp_path, shape, dtype, kind):
    np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
    assert [source.kind for source in find_sources(tmp_path)] == [kind]


def test_damaged_files_stay_sources_for_their_reader_to_judge(tmp_path):
    touch(tmp_path, "a.npy", "b.npz", "c.dcm", "d.nii.gz")
    assert [(source.path, source.kind) for source in find_sources(tmp_path)] == [
        (name, "volume") for name in ("a.npy", "b.npz", "c.dcm", "d.nii.gz")
    ]


def test_a_medmnist_file_is_a_source_for_each_split(tmp_path):
    images = np.zeros((4, 5, 5), np.uint8)
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=images[:, :1, 0], val_images=images.astype(int))
    np.savez(tmp_path / "volume.npz", array=np.zeros((4, 5, 5)))
    found = find_sources(tmp_path)
    assert [(source.path, source.kind, source.split, source.array_names) for source in found] == [
        ("set.npz", "image", "train", ("train_images", "train_labels")),
        ("set.npz", "volume", "val", ("val_images", "")),
        ("volume.npz", "volume", None, None),
    ]
    Recipe("set", tmp_path, tuple(found)).check()


def test_ids_do_not_tell_names_and_do_not_change_when_scans_are_added(tmp_path):
    (tmp_path / "jane_doe.nii.gz").touch()
    (first,) = find_sources(tmp_path)
    assert "jane" not in first.id + first.patient
    (tmp_path / "a.nii.gz").touch()
    assert first in find_sources(tmp_path)


def test_a_folder_that_is_itself_a_series_is_one_scan(tmp_path, save_dicom):
    (source,) = find_sources(save_dicom(tmp_path / "series", CUBE))
    assert source.path == "."
    assert source.patient == hash_patient("series")
    assert len(source.files) == 3


def test_several_series_of_a_folder_are_sources_of_their_own_and_stay_as_they_were(tmp_path, save_dicom):
    save_dicom(tmp_path / "jane", CUBE, series="1.2.3")
    (first,) = find_sources(tmp_path)
    save_dicom(tmp_path / "jane", CUBE, series="1.2.4")
    touch(tmp_path, "jane/notes.txt")
    both = find_sources(tmp_path)
    assert first in both
    assert len(both) == 2
    assert [source.path for source in both] == ["jane", "jane"]
    assert both[0].id != both[1].id
    assert sorted(file for source in both for file in source.files) == sorted(
        f"jane/{path.name}" for path in (tmp_path / "jane").glob("*.dcm")
    )


def test_x_rays_are_images_even_without_a_suffix_and_what_shows_nothing_is_said(tmp_path, said):
    save_object(tmp_path / "jane" / "IM1", "DX")
    save_object(tmp_path / "jane" / "IM2", "CR")
    save_object(tmp_path / "jane" / "report", "SR", None)
    save_object(tmp_path / "DICOMDIR", "OT", None)
    found = find(tmp_path)
    assert [(source.path, source.kind) for source in found.sources] == [("jane/IM1", "image"), ("jane/IM2", "image")]
    assert found.passed_over["DICOMDIR"] == 1
    assert sum(found.passed_over.values()) == 2
    assert "1 DICOMDIR" in said.text
    assert "1 DICOM files (" in said.text
    assert "JANE" not in said.text


def test_a_localizer_is_passed_over_and_said(tmp_path, save_dicom, said):
    save_dicom(tmp_path, CUBE)
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "PixelSpacing": [1, 1]}
    save_object(tmp_path / "scout.dcm", "CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **place)
    (source,) = find_sources(tmp_path)
    assert len(source.files) == 3
    assert "passed over: 1 DICOM localizers" in said.text


@pytest.mark.parametrize("length", [0, 50, 500])
def test_a_damaged_slice_belongs_to_the_only_series_of_its_folder(tmp_path, save_dicom, length):
    folder = save_dicom(tmp_path / "jane", CUBE)
    slices = sorted(folder.iterdir())
    slices[1].write_bytes(slices[1].read_bytes()[:length])
    (source,) = find_sources(tmp_path)
    assert source.files == tuple(f"jane/{path.name}" for path in slices)
    with pytest.raises(ReadError, match="jane"):
        read_dicom_series(tmp_path / source.path, [tmp_path / file for file in source.files])


def test_what_is_named_like_the_slices_beside_it_is_a_slice_that_broke(tmp_path, save_dicom):
    folder = save_dicom(tmp_path / "jane", CUBE)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"IM{number + 8}")
    touch(folder, "README", "IM-9", "elsewhere/IM9")
    (folder / "IM9").write_bytes(b"half")
    found = find(tmp_path)
    assert [source.files for source in found.sources] == [("jane/IM10", "jane/IM8", "jane/IM9")]
    assert found.passed_over == {"files without suffix": 3}


def test_the_data_file_of_a_header_is_no_stray_file(tmp_path):
    (tmp_path / "a.mhd").write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    (tmp_path / "b.nhdr").write_text("NRRD0004\ntype: short\ndata file: voxels.nii\n")
    touch(tmp_path, "a.raw", "voxels.nii", "stray.raw", "c.hdr", "c.img", "sky.hdr")
    found = find(tmp_path)
    assert [source.path for source in found.sources] == ["a.mhd", "b.nhdr", "c.hdr"]
    assert found.passed_over == {".raw files": 1, ".hdr files": 1}


def test_what_is_passed_over_is_counted_in_one_line(tmp_path, said):
    touch(tmp_path, "a.nii", "x.txt", "y.TXT", "README", "z.xml", ".DS_Store", ".git/config")
    found = find(tmp_path)
    assert found.passed_over == {
        ".txt files": 2,
        "files without suffix": 1,
        ".xml files": 1,
        "hidden files": 1,
        "hidden folders": 1,
    }
    (line,) = [record.getMessage() for record in said.records]
    assert line == (
        f"{tmp_path}: passed over: 2 .txt files, 1 .xml files, 1 files without suffix, 1 hidden files, 1 hidden folders"
    )


def test_links_that_leave_the_folder_are_not_followed(tmp_path, said):
    touch(tmp_path, "outside/secret.nii", "in/a.nii", "in/.annex/b.nii")
    inside = tmp_path / "in"
    (inside / "secret.nii").symlink_to(tmp_path / "outside" / "secret.nii")
    (inside / "folder").symlink_to(tmp_path / "outside")
    (inside / "broken.nii").symlink_to(inside / "none.nii")
    (inside / "circle.nii").symlink_to(inside / "circle.nii")
    (inside / "again.nii").symlink_to("a.nii")
    (inside / "b.nii").symlink_to(".annex/b.nii")
    (inside / "b2.nii").symlink_to(".annex/b.nii")
    found = find(inside)
    assert [source.path for source in found.sources] == ["a.nii", "b.nii"]
    assert found.passed_over == {
        "links that leave the folder": 1,
        "links to folders": 1,
        "broken links": 2,
        "links to what is found anyway": 2,
        "hidden folders": 1,
    }
    assert "1 links that leave the folder" in said.text


def test_prepared_folders_are_left_out(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    for name in ("new", "old"):
        touch(tmp_path, f"{name}/.records/1.json", f"{name}/volumes/b.npy")
    found = find(tmp_path, skip=tmp_path / "new")
    assert [source.path for source in found.sources] == ["a.npy"]
    assert found.passed_over == {"prepared folders": 1}
    with pytest.raises(PreparationError, match="prepared data cannot go where the scans lie"):
        find(tmp_path, skip=tmp_path / "new" / "..")


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_odd_names_are_found_and_said_in_one_line(tmp_path, said):
    names = ["a b.nii", "ü.nii", "new\nline.nii", os.fsdecode(b"\xff.nii"), "back\\slash.nii"]
    touch(tmp_path, *names, "x.a\nb", "new\nline_seg.nii", "lost\n_seg.nii")
    found = find_sources(tmp_path)
    assert {source.path for source in found} == set(names)
    Recipe("odd", tmp_path, tuple(found)).check()
    assert len(said.records) == 3
    assert not any("\n" in record.getMessage() for record in said.records)


def test_a_fake_copy_of_the_fixtures_comes_out_right(tmp_path, said):
    touch(tmp_path, "totalseg_ct.nii.gz", "totalseg_ct_seg.nii.gz", "itk_t1.nii.gz", "itk_t1_kmeans.nii.gz")
    touch(tmp_path, "pyradiomics_brain1_image.nrrd", "pyradiomics_brain1_label.nrrd")
    assert labels_of(tmp_path) == {
        "itk_t1.nii.gz": None,
        "itk_t1_kmeans.nii.gz": None,
        "pyradiomics_brain1_image.nrrd": "pyradiomics_brain1_label.nrrd",
        "totalseg_ct.nii.gz": "totalseg_ct_seg.nii.gz",
    }
    assert "2 label maps belong to scans by their names, such as pyradiomics_brain1_label.nrrd to" in said.text


def test_a_fake_copy_of_the_decathlon_has_a_patient_for_each_file(tmp_path):
    names = [f"hippocampus_{number:03d}.nii.gz" for number in (1, 3, 6)]
    touch(tmp_path, *(f"{folder}/{name}" for folder in ("imagesTr", "labelsTr") for name in names), "dataset.json")
    found = find_sources(tmp_path)
    assert labels_of(tmp_path) == {f"imagesTr/{name}": f"labelsTr/{name}" for name in names}
    assert len({source.patient for source in found}) == 3
    touch(tmp_path, *(f"imagesTs/{name}" for name in ("hippocampus_002.nii.gz", "._hippocampus_002.nii.gz")))
    assert set(found) < set(find_sources(tmp_path))


def test_a_fake_copy_of_nuclei_pairs_images_with_their_instances(tmp_path):
    touch(tmp_path, *(f"{folder}/{name}.png" for folder in ("images", "labels") for name in ("00a1", "00b2")))
    found = find_sources(tmp_path, "CT")
    assert labels_of(tmp_path) == {f"images/{name}.png": f"labels/{name}.png" for name in ("00a1", "00b2")}
    assert {(source.kind, source.modality) for source in found} == {("image", None)}
    assert len({source.patient for source in found}) == 2


def test_channels_become_one_source_of_one_patient(tmp_path, said):
    touch(tmp_path, *(f"imagesTr/{case}_{n:04d}.nii.gz" for case in ("a", "b") for n in range(2)), "labelsTr/a.nii.gz")
    first, second = find_sources(tmp_path)
    assert (first.path, first.channel_paths) == ("imagesTr/a_0000.nii.gz", ("imagesTr/a_0001.nii.gz",))
    assert (first.label_path, second.label_path) == ("labelsTr/a.nii.gz", None)
    assert [first.patient, second.patient] == [hash_patient("a"), hash_patient("b")]
    assert "4 files are the channels of 2 volumes by their names" in said.text


def test_label_maps_of_no_scan_or_of_several_are_named_and_not_prepared(tmp_path, said):
    touch(tmp_path, "x.nii", "x_seg.nii", "x_mask.nii", *(f"y{number}_seg.nii" for number in range(7)))
    found = find(tmp_path)
    assert [(source.path, source.label_path) for source in found.sources] == [("x.nii", None)]
    assert found.passed_over == {"label maps": 9}
    warnings = [record.getMessage() for record in said.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert warnings[0].endswith(
        "of no scan here: y0_seg.nii, y1_seg.nii, y2_seg.nii, y3_seg.nii, y4_seg.nii and 2 more"
    )
    assert "x_mask.nii, x_seg.nii. A CSV with a column label_path says which is meant" in warnings[1]
