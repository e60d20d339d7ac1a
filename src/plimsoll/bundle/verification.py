"""Verify on another machine that a bundle answers as it did where it was packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plimsoll.backends.runner import Runner
from plimsoll.bundle.bundle import Bundle
from plimsoll.bundle.golden import GoldenAnswer, checks_of, compare
from plimsoll.bundle.packing import checked_model
from plimsoll.errors import InputError
from plimsoll.preprocessing import Preprocessor
from plimsoll.report.report import Report, environment

PROOF = "report/report.json"
"""Where the report of a shipped bundle lies."""


def verify(bundle: Bundle) -> Report:
    """Run the golden pictures on this machine and compare with what was stored; opening has checked the hashes already.

    Four checks: preprocessing (worst and mean difference, in picture levels of 255), the network (on the stored
    tensors), and the whole way (pictures to outputs). NaN, infinity, another shape or a picture that is refused here
    fails its check. The measurements say what differs between this machine and the one where the bundle was packed, and
    what was proven there.

    Raises BackendMissingError or BuildError where the bundle can't run here at all, BundleError for a damaged tensor,
    ModelError or SpecError where network and Spec don't fit.
    """
    preprocessor = Preprocessor(bundle.spec.input, bundle.preprocessing)
    with Runner.open(checked_model(bundle.model), bundle.target) as runner:
        differences = []
        for vector in bundle.manifest.golden:
            outputs = {name: bundle.tensor(file) for name, file in vector.outputs.items()}
            answer = GoldenAnswer(bundle.tensor(vector.tensor), outputs)
            differences.append(compare(answer, bundle.file(vector.picture), preprocessor, runner))
    here = environment()
    measurements = {"pictures": len(differences), "outputs": len(bundle.manifest.golden[0].outputs)}
    return Report(
        kind="verify",
        subject=f"{bundle.name} on {bundle.target} with {bundle.preprocessing} preprocessing",
        environment=here,
        checks=checks_of(differences, bundle.manifest.tolerance),
        measurements={**measurements, **_proven(bundle), **_same_machine(bundle.manifest.environment, here)},
    )


ROUNDING = ("architecture", "instruction_sets", "versions")
"""What changes how networks are computed: where these are the same, most kernels round alike and a proof carries over.
"""
SPEED = ("processor", "cores", "system", "python")
"""What changes how fast that is."""


def _proven(bundle: Bundle) -> dict[str, str]:
    """Return what the report in a shipped bundle is about and what it showed; nothing if it has none."""
    if PROOF not in bundle.manifest.files:
        return {}
    try:
        report = Report.read(bundle.file(PROOF))
    except InputError:
        return {"proof": f"{PROOF} can't be read by this version"}
    passed = sum(check.passed for check in report.checks)
    pictures = report.measurements.get("test pictures")
    sample = f" on {pictures:,} pictures" if isinstance(pictures, int) else ""
    kept = f"{passed} of {len(report.checks)} limits of the budget kept{sample}"
    return {"proof": f"{report.kind} of {report.subject}: {kept}"}


def _same_machine(packed: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Say for each fact about the machine whether it is the same here as where the bundle was packed, and of all
    together first."""
    facts = {fact.replace("_", " "): _difference(packed.get(fact), here.get(fact)) for fact in (*ROUNDING, *SPEED)}
    other = [name for name, same in facts.items() if same != "yes"]
    return {
        "as it was packed": f"no, other {', '.join(other)}" if other else "yes",
        **{f"same {name}": same for name, same in facts.items()},
    }


def _difference(packed: Any, here: Any) -> str:
    if packed == here:
        return "yes"
    if isinstance(packed, list) and isinstance(here, list):
        before, now = set(map(str, packed)), set(map(str, here))
        parts = [("only where packed", before - now), ("only here", now - before)]
        return "no: " + "; ".join(f"{where} {', '.join(sorted(names))}" for where, names in parts if names)
    if isinstance(packed, dict) and isinstance(here, dict):
        changed = [name for name in sorted(packed.keys() | here.keys()) if packed.get(name) != here.get(name)]
        return "no: " + "; ".join(
            f"{name} {packed.get(name, 'absent')}, here {here.get(name, 'absent')}" for name in changed
        )
    return f"no: packed on {packed}, here {here}"
