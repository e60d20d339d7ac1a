"""The HTML page of a `ship`, or of a `threshold`: one file that shows everything, loads nothing, and can be mailed.

render                     the page, from templates/ with Jinja2
gauge                      the Plimsoll mark with the water as high as the budget is used
pareto_plot, proof_plots   speed against deviation; scores and layers against the reference's
stages                     bars of where the time goes
threshold_page             bands and curves of a `threshold`
svg, label_placement       what the charts are drawn with: elements, axes, labels that don't overlap
"""

from __future__ import annotations

from plimsoll.report.page.render import render

__all__ = ["render"]
