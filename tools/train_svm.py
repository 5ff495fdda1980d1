"""Drop-in for VISSL's program of this name: linear SVMs on extracted features, of volumes or slices.

python tools/train_svm.py config=jointssl/svm_volume ...

The head of configs/config/jointssl/svm_volume.yaml names the rest.
"""

import os
import sys
from pathlib import Path

# OpenMP threads that wait by spinning halve the speed beside a busy loader worker; read when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The checkout wins over an installed copy, here and in every process that this one starts.
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
if ROOT not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))

# At the top, not below: spawned ranks and loader workers run this file again, and need the plugin before VISSL.
import vissl_jointssl.plugin  # noqa: E402, F401

if __name__ == "__main__":
    from vissl_jointssl.plugin.launch import command_line
    from vissl_jointssl.plugin.svm import main

    command_line(main)
