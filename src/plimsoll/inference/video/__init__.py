"""Clips, cameras and streams: their frames, upright and with times, and what is made of the answers.

source    what a clip is read from, and which containers, codecs and protocols may be
clip      `Clip`: its frames, within limits; the newest ones of a live source
sampling  `Sampling`: which frames are answered; where scenes begin
answers   `predict_clip`: frames and pictures in one stream of answers; `Follower`: what is made of a clip's answers
rows      `RowFollower`: the same of rows, for a service
tracking  `Tracker`: numbers that objects keep; `assignment`: which box belongs to which track
smoothing `OneEuro`: points that don't tremble
moderation one answer to a whole clip
writer    where drawn frames go: clips, streams, folders, a window
"""

from __future__ import annotations

from plimsoll.inference.video.answers import AnsweredFrame, answer_items, predict_clip
from plimsoll.inference.video.clip import Clip, Limits, VideoFrame
from plimsoll.inference.video.sampling import Sampling

__all__ = ["AnsweredFrame", "Clip", "Limits", "Sampling", "VideoFrame", "answer_items", "predict_clip"]
