"""The statistics extension: what a model did since it was loaded.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_statistics.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plimsoll.serve.oip.models import Served
from plimsoll.serve.statistics import DurationStatistics


def statistics(models: Iterable[Served]) -> dict[str, Any]:
    """Return the statistics of these models. A model's two names are two doors to the same workers, and have the same
    figures."""
    return {"model_stats": [_of(served) for served in models]}


def _of(served: Served) -> dict[str, Any]:
    counts = served.deployment.statistics
    nothing = DurationStatistics()
    return {
        "name": served.name,
        "version": served.deployment.version,
        "last_inference": counts.last_inference,
        "inference_count": counts.inferences,
        "execution_count": counts.executions,
        "inference_stats": {
            "success": _tally(counts.success),
            "fail": _tally(counts.fail),
            "queue": _tally(counts.queue),
            "compute_input": _tally(counts.input),
            "compute_infer": _tally(counts.infer),
            "compute_output": _tally(counts.output),
            "cache_hit": _tally(nothing),
            "cache_miss": _tally(nothing),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _tally(one.input),
                "compute_infer": _tally(one.infer),
                "compute_output": _tally(one.output),
            }
            for size, one in sorted(counts.batches.items())
        ],
    }


def _tally(tally: DurationStatistics) -> dict[str, int]:
    return {"count": tally.count, "ns": tally.nanoseconds}
