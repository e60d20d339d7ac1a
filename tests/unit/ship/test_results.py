"""What a report says about how to repeat it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.ship.results import repeat_commands

SHIP = ["plimsoll", "ship", "net", "--images", "my photos"]


@pytest.mark.parametrize("calibrators", [[], ["--calibrators", "mse"], ["--calibrators=mse"]])
def test_the_table_can_be_used_again(calibrators: list[str]) -> None:
    run, verify, again = repeat_commands([*SHIP, *calibrators, "--force"], Path("out put"), True)
    assert run == " ".join(["plimsoll ship net --images 'my photos'", *calibrators, "--force"])
    assert verify == "plimsoll verify 'out put'"
    assert again.endswith(
        "\nplimsoll ship net --images 'my photos' --force --calibration 'out put/report/calibration.json'"
    )


def test_nothing_is_reported_about_a_table_where_there_is_none_or_it_was_given() -> None:
    assert len(repeat_commands(SHIP, Path("out"), False)) == 2
    assert len(repeat_commands([*SHIP, "--calibration", "t.json"], Path("out"), True)) == 2
    assert repeat_commands([], Path("out"), True) == ("plimsoll verify out",)
