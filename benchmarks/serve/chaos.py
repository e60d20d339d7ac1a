"""What `plimsoll serve` does when everything goes wrong at full load: every accepted request gets exactly one answer,
the right one for its picture.

    python benchmarks/serve/chaos.py kill open_nsfw PHOTOS --seconds 120          kill -9 of a random worker every two
    seconds python benchmarks/serve/chaos.py stop BUNDLE PHOTOS --seconds 120             SIGSTOP instead python
    benchmarks/serve/chaos.py hangup|loris|malformed|reload|drain|all open_nsfw PHOTOS --out found.json

Each scenario has a service of its own. Clients ask all the time, in a closed loop: photos alone, several at once, in
base64, and now and then a part that is no picture; each score is compared with the one that `plimsoll.load` gave, and
the photos are chosen so that no two could be taken for each other. Before and after, the service's memory, descriptors,
threads, shared memory and temporary files are counted. Exit code 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_clients import hang_up, loris
from chaos_faults import drain, kill_workers, reload, stop_workers
from chaos_judge import Outcome, Photo, telling
from chaos_malformed import HOW_MANY, malformed
from chaos_stage import Stage, leaks, settle
from contracts import photographs
from servers import Running, Server, ours

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Scenario:
    """Something that goes wrong."""

    act: Callable[[Stage, float], Awaitable[dict[str, Any]]]
    seconds: float
    """How long it lasts (malformed: how many requests are sent)."""
    ends: bool = False
    """Whether the service is gone after it."""


SCENARIOS = {
    "kill": Scenario(kill_workers, 120),
    "stop": Scenario(stop_workers, 120),
    "hangup": Scenario(hang_up, 30),
    "loris": Scenario(loris, 100),
    "malformed": Scenario(malformed, HOW_MANY),
    "reload": Scenario(reload, 60),
    "drain": Scenario(drain, 10, ends=True),
}


async def play(stage: Stage, scenario: Scenario, amount: float) -> dict[str, Any]:
    """Warm the service, play a scenario, see whether it is well again, and count what it holds."""
    async with stage.load():
        await asyncio.sleep(4)
    warm = stage.outcome
    await settle(stage)
    before = await stage.holds()
    stage.outcome = Outcome()
    stage.closed.clear()
    started = time.monotonic()
    found = await scenario.act(stage, amount)
    took = time.monotonic() - started
    wrong = (
        list(warm.wrong)
        + list(stage.outcome.wrong)
        + ([f"{stage.outcome.surplus} answers too many"] if stage.outcome.surplus else [])
    )
    wrong += [
        f"{count} requests {how}" for how, count in stage.outcome.statuses.items() if how in ("unanswered", "late")
    ]
    result = {
        "seconds": round(took, 1),
        "answers_a_second": round(stage.outcome.asked / took, 1),
        "traffic": stage.outcome.to_dict(),
        "found": found,
    }
    if scenario.ends:
        return result | {"wrong": wrong}
    if trouble := await stage.healthy():
        wrong.append(trouble)
    await settle(stage)
    after = await stage.holds()
    return result | {
        "before": before,
        "after": after,
        "leaks": leaks(before, after),
        "wrong": wrong + leaks(before, after),
    }


def run(name: str, server: Server, photos: Sequence[Photo], arguments: argparse.Namespace) -> dict[str, Any]:
    """Start a service, play a scenario on it, and print a line."""
    scenario = SCENARIOS[name]
    with (
        tempfile.TemporaryDirectory(prefix="plimsoll-chaos-") as folder,
        tempfile.TemporaryDirectory(prefix="plimsoll-logs-") as logs,
    ):
        environed = Server(server.name, server.command, server.contract, {**server.environment, "TMPDIR": folder})
        log = arguments.logs / f"{name}.log" if arguments.logs else Path(logs) / "server.log"
        with Running(environed, arguments.port, log) as running:
            running.wait(photos[0].data)
            stage = Stage(running, photos, arguments.tolerance, arguments.clients, Path(folder))
            result = asyncio.run(play(stage, scenario, arguments.seconds or scenario.seconds))
            code = running.process.poll() if scenario.ends else running.stop()
        if code != 0:
            result["wrong"].append(f"the service ended with exit code {code}: {log.read_bytes()[-300:]!r}")
        if left := [str(file) for file in Path(folder).rglob("*")]:
            result["wrong"].append(f"it left behind: {left[:5]}")
    _tell(name, result)
    return result


def _tell(name: str, result: dict[str, Any]) -> None:
    """Print a scenario's result in a few lines."""
    traffic, wrong = result["traffic"], result["wrong"]
    print(
        f"{name}: {'WRONG' if wrong else 'well'}. {traffic['asked']} requests in {result['seconds']} s, statuses"
        f" {traffic['statuses']},",
        end=" ",
    )
    print(
        f"problems {traffic['problems']}, slowest {traffic['slowest_seconds']} s, largest difference"
        f" {traffic['largest_difference']:.2g}"
    )
    print(f"  {json.dumps(result['found'])}")
    if "after" in result:
        before, after = result["before"], result["after"]
        web = [f"{one['web']['private_mb']:.0f} MB, {one['web']['descriptors']} descriptors" for one in (before, after)]
        workers = [
            f"{max(w['private_mb'] for w in one['workers']):.0f} MB, {max(w['descriptors'] for w in one['workers'])}"
            for one in (before, after)
        ]
        print(
            f"  web {web[0]} → {web[1]}; largest worker {workers[0]} → {workers[1]} descriptors; restarts"
            f" {after['restarts'] - before['restarts']:g}"
        )
    for line in wrong[:15]:
        print(f"  WRONG: {line}")
    sys.stdout.flush()


def main() -> int:
    """Parse the arguments and play what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("model", nargs="?", default="open_nsfw", help="a zoo name or a bundle")
    parser.add_argument(
        "photos", type=Path, nargs="?", default=ROOT / "examples" / "photos", help="folder of JPEG photographs"
    )
    parser.add_argument("--seconds", type=float, help="of the scenario (malformed: how many requests)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="how far a score may lie from the right one")
    parser.add_argument("--port", type=int, default=18300)
    parser.add_argument("--logs", type=Path, help="folder in which the services' logs are kept")
    parser.add_argument("--serve", default="", help="more options for plimsoll serve")
    parser.add_argument("--out", type=Path, help="JSON file for everything that was found")
    arguments = parser.parse_args()
    model = str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    photos = telling(model, photographs(arguments.photos), arguments.tolerance)
    print(f"{len(photos)} photos that can be told apart, {arguments.clients} clients", flush=True)
    server = ours("plimsoll", f"open_nsfw={model}", *arguments.serve.split())
    results = {
        name: run(name, server, photos, arguments)
        for name in (SCENARIOS if arguments.scenario == "all" else [arguments.scenario])
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))
    return 1 if any(result["wrong"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
