"""Package metadata; `requirements.lock.txt` holds the exact versions that the tests ran with.

VISSL is not listed: its own pins (numpy 1.19.5, hydra-core 1.0.7) cannot be met on a current Python, so
any resolver would refuse. README.md, "Install", gives the one command that works.
"""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = Path("vissl_jointssl/__init__.py").read_text(encoding="utf-8")
VERSION = next(line.split('"')[1] for line in PACKAGE.splitlines() if line.startswith("__version__"))

setup(
    name="vissl_jointssl",
    version=VERSION,
    description="Joint 2D and 3D self-supervised pre-training for medical images, as a VISSL plugin",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.13",
    packages=[*find_packages(include=["vissl_jointssl*"]), "vissl_jointssl.configs"],
    package_dir={"vissl_jointssl.configs": "configs"},
    package_data={"vissl_jointssl": ["py.typed"], "vissl_jointssl.configs": ["**/*.yaml"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "einops>=0.8",
        "pyyaml>=6",
        "nibabel>=5",
        "SimpleITK>=2.3",
        "pydicom>=3.0.2",
        "pillow>=10",
        "pebble>=5",
        "matplotlib>=3.8",
        "safetensors>=0.4",
        "tqdm>=4.66",
        # What VISSL 0.1.6 itself imports, at versions that current Pythons can run.
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        "fvcore",
        "iopath>=0.1.10",
        "scikit-learn>=1.3",
        "scipy>=1.11",
        "submitit>=1.5",
        "parameterized",
        "tabulate",
        "tensorboard",
        "setuptools<82",
    ],
    extras_require={
        "evaluation": ["segmentation-models-pytorch>=0.5", "monai>=1.5", "torchmetrics>=1.4", "pycocotools>=2.0.8"],
        "dev": ["pytest", "ruff", "mypy", "hypothesis", "deformable-attention", "torchio", "timm"],
    },
    entry_points={"console_scripts": ["jointssl = vissl_jointssl.cli:main"]},
)
