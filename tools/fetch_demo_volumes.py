"""Get the demo's scans out of two packages of the Python package index; a second run needs no network.

    python tools/fetch_demo_volumes.py [FOLDER] [--archives DIR]

The source archive of TotalSegmentator carries CT and MR scans for its tests, the wheel of nilearn a T1 template of the
brain (licences: docs/data.md). pip downloads both; what they must hold is pinned here by sha256, file by file, and
only these files are taken out. This is the one place of the project that uses the network.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FOLDER = Path("runs/demo/raw")


class FetchError(RuntimeError):
    """The scans cannot be had; the message is one sentence that says what is needed."""


@dataclass(frozen=True)
class Package:
    """An archive on the package index, and what is wanted of it.

    Attributes:
        requirement: For pip, exact.
        pip_options: That make pip choose this archive.
        filename: Of the archive.
        sha256: Of the archive.
        megabytes: Of the archive.
        members: Name to save as -> (name inside the archive, sha256 of the file).
    """

    requirement: str
    pip_options: tuple[str, ...]
    filename: str
    sha256: str
    megabytes: int
    members: dict[str, tuple[str, str]]


_REFERENCE = "totalsegmentator-2.18.0/tests/reference_files/"
_SERIES = _REFERENCE + "example_ct_dicom/CT.1.3.12.2.1107.5.1.4.60064.300000221208081134280000"
_SLICES = (  # files ...16573 to ...16592 of the series
    "4c5633409fa4d3edf6871e5684e9e1b10325b4d0949997582f43b23a684d0dc4",
    "9148f91127145497f4d6c6f0780f9452504cd7fe5088ec8f2bf2b21800c731ff",
    "3edaccec892e0821440cbefe3d5465923bb5146c316cbaf58f578d962f120484",
    "9b68685f0c5f9bfcfc2c397f4fadf431da288d7422ca72e7d9031d4e039418cd",
    "c8d2c0dc05e414d47d3652c658d8fecc20c3cf7ce106c10d84ad033d39700bcc",
    "0ee2c1d58e06cedd91483ca35c04da3c26fea0dbe88aaf1eaa950b57f38357d6",
    "c76cf0818d4215b92883d109b8a0b62ae0a4d81637eed98738f9c62b6f49bb72",
    "106e20514fd3ca66895e14dbfba96c01c1195e4ed890c035d4368dd71f3ee116",
    "5804e6c4a50f4d5b20040ac82a1c6d79cba5f7267d71f10b0a1b49eda1bc13ff",
    "bef219a16b22949224de4581a2d288863b2585d29556ac24021f03307378cb39",
    "9de5a49e880417d5330fe299115fdb95831a98234216a31c5c0e9a0be9a6dcd3",
    "fa00c8d81ec8aa0d0cfc4e05343782c3a75a4c60df8cccf9ff5db42ac454e61d",
    "ebba0900b0f728db0c94c769db3e5ca38a0cd916386a727541eb3e56350770e5",
    "f084ec95cfba25efb7cbe86e8b4966b051904037e8385f58fe398c5475693b89",
    "20a9b88a30ea8a824ac65cb19c1ebf80964b41ff476497706ff2a286e5f27a25",
    "2a515d3b60f3ff733aac1fc5414206c331e3ed2ccef8c2e0c30b844c538e3ed8",
    "5880669f1bc36b09cad4bdf487992ec415da0afa014e927efc282e612f467574",
    "7af4dd5b5766a87368939116b91f90d989820e7b2237fb9bcd10d47db0960875",
    "671306f4462ae881976c18c6a2d8a1567279fb0166ef0e9e8a41271fac9c1cbb",
    "fdb76ad5272f074e07cc81509604fd163f2f8a9903d34b16ba6f078250373c51",
)

PACKAGES = (
    Package(
        requirement="totalsegmentator==2.18.0",
        pip_options=("--no-binary", "totalsegmentator"),
        filename="totalsegmentator-2.18.0.tar.gz",
        sha256="5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
        megabytes=38,
        members={
            "abdomen_ct.nii.gz": (
                _REFERENCE + "example_ct.nii.gz",
                "dbd3ae6d614d1d7ef3a46925c30c70038ed52da6b37fdd6afdc7b9b71387e3e1",
            ),
            "abdomen_ct_labels.nii.gz": (
                _REFERENCE + "example_seg_fast_force_split.nii.gz",
                "e8097758e56e73099075b6caaebce23ef11bc6fad66a4ec3753b9406846558c7",
            ),
            "liver_ct_labels.nii.gz": (
                _REFERENCE + "example_seg_dicom.nii.gz",
                "98af7f6536c316ff9084054f20956cd3e28af376b81d582d269fbea2744878fc",
            ),
            "liver_mr.nii.gz": (
                _REFERENCE + "example_mr_sm.nii.gz",
                "209b46efaff595dd54a9332872e17a722b62654bbb68dbd89acd5090701bbd4f",
            ),
            "liver_mr_labels.nii.gz": (
                _REFERENCE + "example_seg_mr.nii.gz",
                "e73a5ee12962aa2bb2f3e43ab58dfc67990c5a7ef2dcb426a1bf5e5982b9587f",
            ),
            "aorta_ct.nii.gz": (
                _REFERENCE + "aorta_report/example_ct.nii.gz",
                "372d98723e3283a8d4a0ae2f0ef1e581c0ad17b673b30b2e8d3e215180cc2a12",
            ),
            **{
                f"liver_ct_dicom/slice_{number:02d}.dcm": (f"{_SERIES}{16573 + number}", sha256)
                for number, sha256 in enumerate(_SLICES)
            },
        },
    ),
    Package(
        requirement="nilearn==0.12.1",
        pip_options=("--only-binary", ":all:"),
        filename="nilearn-0.12.1-py3-none-any.whl",
        sha256="2112e1cdf9f7b96e0af87d679997e834ee36534fc0a970811a703700820edc4c",
        megabytes=12,
        members={
            "brain_mr.nii.gz": (
                "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
                "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
            ),
        },
    ),
)


def fetch(folder: Path, packages: tuple[Package, ...] = PACKAGES, archives: Path | None = None) -> list[str]:
    """Bring every file into the folder; files that are there and whole are left alone.

    Args:
        folder: Made if it does not exist.
        packages: What to get.
        archives: A folder with the archives, for a machine without a network; None asks pip.

    Returns:
        Names of the files that were missing or damaged and are now there.

    Raises:
        FetchError: If an archive cannot be had, or is not the pinned one.
    """
    fetched = []
    for number, package in enumerate(packages, start=1):
        wanting = [name for name, (_, sha256) in package.members.items() if _sha256(folder / name) != sha256]
        if not wanting:
            continue
        count = f"[{number}/{len(packages)}] {package.requirement}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch:
            if archives is None:
                print(f"{count}: downloading {package.megabytes} MB ...", flush=True)
                archive = _download(package, Path(scratch))
            else:
                archive = archives / package.filename
            _check_archive(package, archive)
            print(f"{count}: taking out {len(wanting)} files ...", flush=True)
            _extract(package, archive, wanting, folder)
        fetched += wanting
    return fetched


def _download(package: Package, scratch: Path) -> Path:
    """Let pip get the archive: it knows the index, proxies and certificates of this machine."""
    options = ["--no-deps", "--disable-pip-version-check", "--quiet", "--retries", "2", "--timeout", "30"]
    command = [sys.executable, "-m", "pip", "download", *options, *package.pip_options, package.requirement]
    result = subprocess.run([*command, "--dest", str(scratch)], capture_output=True, text=True, check=False)
    archive = scratch / package.filename
    if result.returncode != 0 or not archive.is_file():
        said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        raise FetchError(
            f"{package.requirement} cannot be downloaded (pip: {said[-1] if said else 'no archive came'}); the first "
            f"run needs the Python package index, or {package.filename} in the folder given by --archives"
        )
    return archive


def _check_archive(package: Package, archive: Path) -> None:
    found = _sha256(archive)
    if found is None:
        raise FetchError(f"{archive} does not exist; `pip download --no-deps {package.requirement}` gets it")
    if found != package.sha256:
        raise FetchError(
            f"{archive.name} is damaged or another file than the demo was made with (sha256 {found[:12]}..., expected "
            f"{package.sha256[:12]}...); run again, and if it stays so, ask whoever runs your package index"
        )


def _extract(package: Package, archive: Path, names: list[str], folder: Path) -> None:
    """Copy the wanted members to names of our own choosing: a name inside the archive decides nothing."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            contents = {name: wheel.read(package.members[name][0]) for name in names}
    else:
        contents = {}
        wanted = {package.members[name][0]: name for name in names}
        with tarfile.open(archive) as sdist:
            for member in sdist:  # in order of the archive: jumping back would decompress it again and again
                if member.name in wanted and member.isreg():
                    file = sdist.extractfile(member)
                    contents[wanted[member.name]] = file.read() if file is not None else b""
    for name in names:
        sha256 = hashlib.sha256(contents.get(name, b"")).hexdigest()
        if sha256 != package.members[name][1]:
            raise FetchError(f"{archive.name} does not hold {package.members[name][0]} as it was pinned")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(contents[name])
        partial.replace(path)


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Parse, fetch, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER, help="default: %(default)s")
    parser.add_argument("--archives", type=Path, help="folder with the two archives, instead of downloading them")
    args = parser.parse_args(arguments)
    try:
        fetched = fetch(args.folder, archives=args.archives)
    except FetchError as error:
        print(f"fetch_demo_volumes: {error}", file=sys.stderr)
        return 1
    total = sum(len(package.members) for package in PACKAGES)
    print(f"{args.folder}: {total} files, {len(fetched)} of them new; all match their sha256")
    return 0


if __name__ == "__main__":
    sys.exit(main())
