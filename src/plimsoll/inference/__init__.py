"""Answer pictures with a model.

resolve    `open_model`: what MODEL means on the command line and in `plimsoll.load`
predictor  `Predictor`: one picture at a time, or a stream of them
stream     many pictures in several threads, answered in order
images     `find_images`: which pictures the paths of a command mean
"""
