"""What a report says about how to repeat it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.ship.results import repeat_commands

SHIP = ["plimsoll", "ship", "net", "--images", "my photos"]


@pytest.mark.parametrize("calibrators", [[], ["--calibrators", "mse"], ["--calibrators=mse"]])
def test_the_table_can_be_used_again(calibrators: list[str]) -> None:
    run, verify, again = repeat_commands([*SHIP, *calibrators, "--force"], Path("out put"), Path("work/mse.json"))
    assert run == " ".join(["plimsoll ship net --images 'my photos'", *calibrators, "--force"])
    assert verify == "plimsoll verify 'out put'"
    assert again.endswith("\nplimsoll ship net --images 'my photos' --force --calibration work/mse.json")


def test_nothing_is_reported_about_a_table_where_there_is_none_or_it_was_given() -> None:
    assert len(repeat_commands(SHIP, Path("out"), None)) == 2
    assert len(repeat_commands([*SHIP, "--calibration", "t.json"], Path("out"), Path("work/given.json"))) == 2
    assert repeat_commands([], Path("out"), Path("t.json")) == ("plimsoll verify out",)
