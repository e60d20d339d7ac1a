"""What comparisons measure, with NumPy only.

decisions    flips with exact bounds, the deviation of scores, rank correlation, bootstrapped bounds
average_precision  precision over recall of detectors, with a weight for each picture
labelled     accuracy, precision, recall, AUC and top-k of two models on labelled pictures
stratified   shares of a population from a stratified sample, with intervals that hold for rare classes
"""
