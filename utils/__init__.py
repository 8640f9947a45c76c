"""The map of this folder. Imports run one way: figures -> scoring -> inputs, and training -> inputs; all use the top.

On top, for everything else:
    rows          the rows of the table, each declared in one line; a checkpoint turned back into a row
    classes       names and colours of a data set's classes
    config        constants at the top of a script, overridden by --KEY=value
    terminal      what surrounds a script: consoles, closed pipes, signals to end
    checkpoint    files of weights
    device        the device, and the precision it multiplies in
    distributed   several processes
    files         files written whole or not at all; CSV
    tables        Markdown tables, and their place in a README
    timing        our way beside the plain way
    errors        the one exception that is shown without a traceback

inputs/           from files to batches
    layouts       which picture and which mask belong together, and to which split
    pictures      reading one picture or mask
    dataset       a split as uint8 tensors
    cache         arrays that are computed once and kept on disk
    features      the same for the tokens of a frozen encoder
    augment       augmentation of whole batches
    geometry, paste, degrade   its parts: scale and turn, cut out and paste, blur and noise
    windows       windows of a picture, around something in it
    perturbations eight ways to corrupt a picture
    clicks        where a person would click
    plain         the usual way to load pictures, to measure the loader against

training/         from batches to weights
    fit           the loop: epochs, averaged weights, checkpoints, exact resume
    losses        cross-entropy + soft Dice with void pixels
    reconstruction  hidden patches and the loss on them
    rates         learning rates that differ within a model
    simulated_clicks  a person who clicks, for the training of PointCLIP

scoring/          from weights to numbers
    row           the face that all rows have
    by_class, by_text, by_click   its three kinds
    zoom          a closer look at what was found
    naming        the layer that classifies a picture of one thing, for that look
    averaging     the mean of several trainings (python -m experiments.averaging)
    click_predictor   one picture and many clicks, with a closer look at what is small
    click_baselines   what the same clicks are worth without a model of clicks
    click_curves  IoU against the number of clicks, NoC
    metrics       confusion matrix, IoU, Dice, the interval
    results       lines of results.csv and the table
    error_analysis    what went wrong in which picture
    robustness    rows on corrupted pictures
    onnx_graphs   what export.py writes
    speed         how fast a row is scored
    old_metric    why old numbers look so low (python -m experiments.old_metric)

figures/          from numbers to pictures (python -m experiments.figures draws those of the README)
    plots         figures drawn from numbers, grids of pictures
    grids         pictures with what every row makes of them
    overlays      one picture with its mask, its clicks; index PNGs
    diagrams      the models as boxes
    looks         colours and markers of rows and classes
"""
