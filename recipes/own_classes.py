"""Your own classes, from ten labelled pictures on: continue the training of CLIP fine-tuned.

python train_clip.py recipes/own_classes.py --DATA_ROOT=data/mine --CHECKPOINTS=checkpoints/mine  # 20 minutes

On street scenes an encoder from the hub was a better start (LOG.md), at a higher rate:
--START= --ENCODER=facebook/deit-tiny-patch16-224 --LEARNING_RATE=1e-3 --ENCODER_RATE=0.2
"""

START = "checkpoints/clip_finetuned"  # encoder and decoder; its classes of the same name are kept
FREEZE_ENCODER = False  # it knows cats and dogs; other things it has to learn
ENCODER_RATE = 0.1  # of LEARNING_RATE: the encoder needs smaller steps than the decoder
LEARNING_RATE = 5e-4  # 2e-3 forgets cats and dogs (LOG.md)
IMAGE_SIZE = 320  # as at prediction
SCALE = (0.5, 2.0)  # things of all sizes
EDGE = "mirror"
EPOCHS = 5  # of EPOCH_STEPS each
EPOCH_STEPS = 100  # an epoch of ten pictures would be one step
BATCH_SIZE = 8  # there may be ten pictures only
