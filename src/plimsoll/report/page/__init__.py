"""The HTML page of a `ship`: one file that shows everything, loads nothing, and can be mailed.

render                        the page, from templates/ with Jinja2
data                          what a report of kind "ship" holds
headline, stages              what the page says, and its bars
pareto_plot, score_plots,
layer_plot, gauge             the charts
svg, axes, label_placement    what the charts are drawn with
"""

from __future__ import annotations

from plimsoll.report.page.render import render

__all__ = ["render"]
