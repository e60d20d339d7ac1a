"""Answer pictures with a model.

predictor  `open_model`: what MODEL means; `load`, `Predictor`: answer one picture, or a stream of them
stream     many pictures in several threads, answered in order
rows       predictions as rows: keys, values, Arrow types
spec_check whether a Spec and its network do together what the Spec says
cascade    networks that feed each other; `cascade_spec`: their file; `cascade_bundle`: all of them in one bundle
video/     clips, cameras and streams
drawing/   answers over their picture
images     `find_images`: which pictures the paths of a command mean
walk       the pictures in folders and patterns, and what is left out there; `path_list`: lists on standard input
"""
