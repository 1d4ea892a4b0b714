#!/usr/bin/env bash
# Written by write_conda_files.py from requirements.lock (make lock), for `snakemake --sdm conda`.
set -euo pipefail
pip install --no-deps --no-build-isolation --no-binary xtcocotools \
    mmcv-lite==2.1.0 \
    mmdeploy==1.3.1 \
    mmdet==3.2.0 \
    mmengine==0.10.7 \
    mmpose==1.3.2 \
    mmpretrain==1.2.0 \
    nncf==3.4.0 \
    torchvision==0.16.2 \
    xtcocotools==1.14.3
