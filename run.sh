#!/usr/bin/env bash
# bash run.sh         set up, then train and evaluate four rows on the built-in data: under ten minutes on two CPU cores
# bash run.sh test    set up, then run the tests
# bash run.sh table   set up, then make the README's tables and figures on PETS_ROOT: trains every row, takes hours
set -euo pipefail
cd "$(dirname "$0")"
case "${1:-}" in "" | test | table) ;; *) echo "bash run.sh [test | table]; there is no $1" >&2; exit 2 ;; esac

# 1. Environment: the active one, or one of our own in .venv.
if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/pip ] || [ -x .venv/Scripts/pip.exe ] || python3 -m venv .venv
    source .venv/bin/activate 2> /dev/null || source .venv/Scripts/activate  # the second on Windows
fi
requirements=requirements.txt
[ "${1:-}" != test ] || requirements=requirements-test.txt
unset PYTHONDONTWRITEBYTECODE  # modules are compiled when they are first imported: half the time of the installation
python -m pip install --quiet --disable-pip-version-check --no-compile -r "$requirements"

# 2. Tests.
if [ "${1:-}" = test ]; then
    shift
    exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"  # two processes, a file of tests at a time, by name
fi

# 3. The table: experiments/table.py says what it does, and goes on where it was stopped.
if [ "${1:-}" = table ]; then
    shift
    exec python -m experiments.table --README=README.md,results/README.md,checkpoints/README.md "$@"
fi

# 4. The main job, small enough for two cores. Encoders come from the local Hugging Face cache; nothing is downloaded.
export PETS_ROOT=data/synthetic HF_HUB_OFFLINE=1
here="--CHECKPOINTS=checkpoints/synthetic"
small="$here --BATCH_SIZE=8 --EMA_DECAY=0.95 --VALIDATE_EVERY=12"
small="$small --SCALE=0.9,1.2 --ROTATION=5 --COLOUR=0.3"  # drawings are more alike than photos
unet="--IMAGE_SIZE=96 --SMALL_SIZE=48 --SMALL_SHARE=0.7 --WIDTH=16 --MAX_WIDTH=64 --ERASE=0"
pointclip="--IMAGE_SIZE=80 --VIEW_SIZE=80 --START=clip --LEARNING_RATE=1e-3 --PASTE=0"
clip="--IMAGE_SIZE=80 --ENCODER=tiny --WIDTHS=8,24,48,96 --LEARNING_RATE=3e-3"
python data/prepare.py --SYNTHETIC=True
# Two scripts at a time, a core each: networks this small gain little from a second core.
mkdir -p checkpoints/synthetic
log=checkpoints/synthetic/background.log  # of the second script, shown when it is done
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
finish() { local status=0; wait $! || status=$?; echo "--- $1"; cat $log; return $status; }
export OMP_NUM_THREADS=1
python train_unet.py $small $unet --EPOCHS=60 &> $log &
echo "--- CLIP (the U-Net's training runs beside it)"
python train_clip.py $small $clip --EPOCHS=48
finish U-Net
python train_autoencoder.py $small $unet --PRETRAIN_EPOCHS=12 --EPOCHS=48 &> $log &
echo "--- PointCLIP (the autoencoder's training runs beside it)"
python train_pointclip.py $small $pointclip --EPOCHS=16
finish Autoencoder
unset OMP_NUM_THREADS
pictures=images/synthetic
python evaluate.py $here --RESULTS=results/synthetic --EXAMPLES=$pictures
python -m experiments.clicks $here --RESULTS=results/synthetic --IMAGES=$pictures --PICTURES=20
python -m experiments.errors --RESULTS=results/synthetic --IMAGES=$pictures
