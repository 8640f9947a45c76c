#!/usr/bin/env bash
# bash run.sh         set up, then train and evaluate every row on the built-in data: ten to twenty minutes on two CPU cores
# bash run.sh test    set up, then run the tests
set -euo pipefail
cd "$(dirname "$0")"

# 1. Environment: the active one, or one of our own in .venv.
if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/pip ] || python3 -m venv .venv
    source .venv/bin/activate
fi
requirements=requirements.txt
[ "${1:-}" != test ] || requirements=requirements-test.txt
python -m pip install --quiet --disable-pip-version-check -r "$requirements"

# 2. Tests.
if [ "${1:-}" = test ]; then
    shift
    exec python -m pytest -n 2 --dist loadfile "$@"  # two processes, a file of tests at a time
fi

# 3. The main job, small enough for two cores. Encoders come from the local Hugging Face cache; nothing is downloaded.
export PETS_ROOT=data/synthetic HF_HUB_OFFLINE=1
here="--CHECKPOINTS=checkpoints/synthetic"
python data/prepare.py --SYNTHETIC=True
python train_unet.py $here --EMA_DECAY=0.95 --IMAGE_SIZE=96 --SMALL_SIZE=64 --WIDTH=24 --EPOCHS=40
python train_autoencoder.py $here --EMA_DECAY=0.95 --IMAGE_SIZE=96 --SMALL_SIZE=64 --WIDTH=24 \
    --PRETRAIN_EPOCHS=10 --EPOCHS=40
python train_clip.py $here --EMA_DECAY=0.95 --IMAGE_SIZE=96 --EPOCHS=40 --FALLBACK=tiny --ZOOM=False
python train_clip.py $here --EMA_DECAY=0.95 --IMAGE_SIZE=96 --EPOCHS=12 --FALLBACK=tiny --PROMPT=point
pictures=images/synthetic
python evaluate.py $here --RESULTS=results/synthetic --IMAGES=$pictures --EXAMPLES=$pictures \
    --CLICKS="PointCLIP,CLIP look-up,disk,everything"
