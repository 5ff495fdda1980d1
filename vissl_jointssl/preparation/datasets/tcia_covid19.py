"""CT Images in COVID-19, of the Cancer Imaging Archive, for pre-training (Harmon et al., Nature Communications 2020).

The paper counts 1,300 CT and does not say which; the home has 771 of 661 patients (632 when they came, 29 followed over
weeks), and this is all of them. `volume-covid19-A-0721_day008` is patient 0721 on day 8, `..._1` one more scan.
"""

from __future__ import annotations

from pathlib import Path

from vissl_jointssl.preparation.data_set import DataSet
from vissl_jointssl.preparation.recipe import Recipe, Source
from vissl_jointssl.preparation.sources.case_files import by_case, find_any
from vissl_jointssl.preparation.splitting import hash_patient

_PATIENT = slice(len("covid19-A-"), len("covid19-A-0000"))


def tcia_covid19(root: Path) -> Recipe:
    """The recipe, over the folder that the archive was unpacked to; scans are found at any depth. No split is fixed.

    Raises:
        WrongFolder: If there is no scan.
        PreparationError: If a scan is there twice or is called otherwise, as those of the challenge COVID-19-20 are
            (`..._ct.nii.gz`, `..._seg.nii.gz`), which took a part of these; with the paths.
    """
    found = find_any(root, ["**/volume-covid19-A-*.nii*"])
    scans = by_case(found, r"volume-(covid19-A-\d{4}(?:_\d+)?(?:_day\d+)?)\.nii(?:\.gz)?")
    sources = (
        Source(case, path.relative_to(root).as_posix(), hash_patient(f"tcia_covid19/{case[_PATIENT]}"), modality="CT")
        for case, path in scans.items()
    )
    return Recipe("tcia_covid19", root, tuple(sources))


DATA_SETS = (
    DataSet(
        name="tcia_covid19",
        title="CT Images in COVID-19",
        home="https://doi.org/10.7937/tcia.2020.gqry-nc81",
        licence="CC BY 4.0; cite An et al. 2020, Harmon et al. 2020 and the archive (Clark et al. 2013)",
        contents="771 chest CT of 661 patients",
        count=771,
        modality="CT",
        labels="none",
        layout="CT-Covid-19-August2020/volume-covid19-A-0000.nii.gz ... volume-covid19-A-0700_day000.nii.gz ...",
        recipe=tcia_covid19,
    ),
)
