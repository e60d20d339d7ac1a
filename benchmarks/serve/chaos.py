"""What `plimsoll serve` does when everything goes wrong at full load: every accepted request gets exactly one answer,
the right one for its picture.

    # kill -9 of a random worker every two seconds; `stop` sends SIGSTOP instead
    python benchmarks/serve/chaos.py kill open_nsfw PHOTOS --seconds 120
    python benchmarks/serve/chaos.py stop BUNDLE PHOTOS --seconds 120
    python benchmarks/serve/chaos.py hangup|loris|malformed|reload|drain|all open_nsfw PHOTOS --out results.json
    # a machine without room, and callers that take it
    python benchmarks/serve/chaos.py descriptors|disk|wiped|unread|hostile BUNDLE PHOTOS --seconds 120

Each scenario has a service of its own. Clients ask all the time, in a closed loop: photos alone, several at once, in
base64, and now and then a part that is no picture; each score is compared with the one that `plimsoll.load` gave, and
the photos are chosen so that no two could be taken for each other. Before and after, the service's memory, descriptors,
threads, shared memory and temporary files are counted, and the pauses of its event loop are noted. Exit code 1 where
anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chaos_checks import Outcome, Photo, distinguishable
from chaos_clients import hang_up, loris
from chaos_faults import drain, kill_workers, reload, stop_workers
from chaos_machine import hostile, no_descriptors, no_disk, non_readers, wiped
from chaos_malformed import DEFAULT_COUNT, malformed
from chaos_testbed import Testbed, leaks, settle
from loop_pauses import Pauses
from request_formats import photographs
from servers import Running, Server, plimsoll_server
from set_up import HERE

LONGEST_PAUSE_MS = 50
"""Of the event loop: what the process computed while the loop answered nobody."""
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Scenario:
    """A fault to inject."""

    act: Callable[[Testbed, float], Awaitable[dict[str, Any]]]
    seconds: float
    """How long it lasts (malformed: how many requests are sent)."""
    ends: bool = False
    """Whether the service is gone after it."""


SCENARIOS = {
    "kill": Scenario(kill_workers, 120),
    "stop": Scenario(stop_workers, 120),
    "hangup": Scenario(hang_up, 30),
    "loris": Scenario(loris, 100),
    "malformed": Scenario(malformed, DEFAULT_COUNT),
    "reload": Scenario(reload, 60),
    "descriptors": Scenario(no_descriptors, 120),
    "disk": Scenario(no_disk, 120),
    "wiped": Scenario(wiped, 120),
    "unread": Scenario(non_readers, 120),
    "hostile": Scenario(hostile, 120),
    "drain": Scenario(drain, 10, ends=True),
}


async def run_scenario(testbed: Testbed, scenario: Scenario, amount: float) -> dict[str, Any]:
    """Warm the service, play a scenario, see whether it is well again, and count what it holds."""
    async with testbed.load():
        await asyncio.sleep(4)
    warm = testbed.outcome
    await settle(testbed)
    before = await testbed.holds()
    testbed.outcome = Outcome()
    testbed.closed.clear()
    began, started = time.time(), time.monotonic()
    details = await scenario.act(testbed, amount)
    took = time.monotonic() - started
    wrong = (
        list(warm.wrong)
        + list(testbed.outcome.wrong)
        + ([f"{testbed.outcome.surplus} answers too many"] if testbed.outcome.surplus else [])
    )
    wrong += [
        f"{count} requests {how}" for how, count in testbed.outcome.statuses.items() if how in ("unanswered", "late")
    ]
    result = {
        "began": began,
        "seconds": round(took, 1),
        "answers_a_second": round(testbed.outcome.requests / took, 1),
        "traffic": testbed.outcome.to_dict(),
        "details": details,
    }
    if scenario.ends:
        return result | {"wrong": wrong}
    if trouble := await testbed.healthy():
        wrong.append(trouble)
    await settle(testbed)
    after = await testbed.holds()
    leaked = leaks(before, after, testbed.middle_mb)
    return result | {"before": before, "after": after, "leaks": leaked, "wrong": wrong + leaked}


def run(name: str, server: Server, photos: Sequence[Photo], arguments: argparse.Namespace) -> dict[str, Any]:
    """Start a service, play a scenario on it, and print a line."""
    scenario = SCENARIOS[name]
    with (
        tempfile.TemporaryDirectory(prefix="plimsoll-chaos-") as folder,
        tempfile.TemporaryDirectory(prefix="plimsoll-logs-") as logs,
    ):
        config = Path(logs) / "serve.toml"
        config.write_text(f"folder = {str(Path(folder, 'served'))!r}\n")
        noted = Path(logs) / "pauses.jsonl"
        options = [*server.command[server.command.index("plimsoll") + 1 :], "--config", str(config)]
        command = [sys.executable, str(HERE / "loop_pauses.py"), str(noted), *options]
        configured = Server(server.name, command, server.request_format, {**server.environment, "TMPDIR": folder})
        log = arguments.logs / f"{name}.log" if arguments.logs else Path(logs) / "server.log"
        with Running(configured, arguments.port, log) as running:
            running.wait(photos[0].data)
            testbed = Testbed(running, photos, arguments.tolerance, arguments.clients, Path(folder))
            result = asyncio.run(run_scenario(testbed, scenario, arguments.seconds or scenario.seconds))
            code = running.process.poll() if scenario.ends else running.stop()
        pauses = Pauses.read(noted, result.pop("began"))
        result["pauses"] = asdict(pauses)
        if pauses.largest_computed > LONGEST_PAUSE_MS:
            result["wrong"].append(f"the event loop stood still for {pauses.largest_computed:.0f} ms of computing")
        if code != 0:
            result["wrong"].append(f"the service ended with exit code {code}: {log.read_bytes()[-300:]!r}")
        if files := [str(file) for file in Path(folder).rglob("*") if file.name != "served"]:
            result["wrong"].append(f"it left behind: {files[:5]}")
    _print_result(name, result)
    return result


def _print_result(name: str, result: dict[str, Any]) -> None:
    """Print a scenario's result in a few lines."""
    traffic, wrong = result["traffic"], result["wrong"]
    print(
        f"{name}: {'WRONG' if wrong else 'ok'}. {traffic['requests']} requests in {result['seconds']} s, statuses"
        f" {traffic['statuses']},",
        end=" ",
    )
    print(
        f"problems {traffic['problems']}, slowest {traffic['slowest_seconds']} s, largest difference"
        f" {traffic['largest_difference']:.2g}"
    )
    print(f"  {json.dumps(result['details'])}, event loop {json.dumps(result['pauses'])}")
    if "after" in result:
        before, after = result["before"], result["after"]
        web = [
            f"{usage['web']['private_mb']:.0f} MB, {usage['web']['descriptors']} descriptors"
            for usage in (before, after)
        ]
        workers = [
            f"{max(worker['private_mb'] for worker in usage['workers']):.0f} MB,"
            f" {max(worker['descriptors'] for worker in usage['workers'])}"
            for usage in (before, after)
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
    parser.add_argument("--out", type=Path, help="JSON file for all results")
    arguments = parser.parse_args()
    model = str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    photos = distinguishable(model, photographs(arguments.photos), arguments.tolerance)
    print(f"{len(photos)} distinguishable photos, {arguments.clients} clients", flush=True)
    server = plimsoll_server("plimsoll", f"open_nsfw={model}", *arguments.serve.split())
    results = {
        name: run(name, server, photos, arguments)
        for name in (SCENARIOS if arguments.scenario == "all" else [arguments.scenario])
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))
    return 1 if any(result["wrong"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
