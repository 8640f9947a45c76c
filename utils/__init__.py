"""The map of this folder.

Imports run one way: figures -> scoring -> rows -> inputs, training -> inputs; all use the last list.

inputs/           files -> batches
    layouts       which picture and which mask belong together, and to which split
    pictures      reading one picture or mask
    dataset       a split as uint8 tensors
    cache         arrays that are computed once and kept on disk
    augment       augmentation of whole batches
    geometry, paste            its parts: scale and turn, cut out and paste
    windows       windows of a picture, around something in it
    clicks        where a person would click

training/         batches -> weights
    fit           the loop: epochs, averaged weights, checkpoints, exact resume
    losses        cross-entropy + soft Dice with void pixels
    simulated_clicks  simulated users, for the training of PointCLIP
    encoders      models on a pretrained encoder
    start         weights to go on from, of these classes or of others
    naming        a classifier for object crops, for the closer look

rows/             weights -> answers; its __init__.py declares the rows of the table, one line each
    row           the interface that all rows have
    by_class, by_text, by_click   the three kinds of row
    closer_look   every part of a class map is seen again, in a crop
    class_prior   the class map as a prior for the first click

scoring/          answers -> numbers
    results       lines of results.csv and per_image.csv, and the table

figures/          numbers -> pictures that the scripts draw
    plots         curves of a training, grids of pictures
    grids         pictures and every row's predictions, the progress of a training
    overlays      one picture with its mask, its clicks; index PNGs

Used by all:
    metrics       confusion matrix, IoU, Dice, the interval
    classes       names and colours of a data set's classes
    config        constants at the top of a script, overridden by --KEY=value
    terminal      output that cannot fail, signals that end a script
    checkpoint    files of weights
    device        the device, and the precision it multiplies in
    files         files written whole or not at all; CSV
    tables        Markdown tables
    errors        the one exception that is shown without a traceback
"""
