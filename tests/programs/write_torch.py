"""Save networks of `torch_networks.py` in PyTorch's forms: `write_torch.py FOLDER FORM NAME …`, run by the toolchain's
Python.

FORM: pt2, torchscript, weights, all, odd. Beside each network lie answers.npz: pictures and what PyTorch answered to
them.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch_networks  # type: ignore[import-not-found]  # it lies beside this script
from torch import Tensor, nn


def save(folder: Path, form: str, name: str) -> None:
    build, side = torch_networks.NETWORKS[name]
    network = torch_networks.seeded(build())
    parts = folder / name
    parts.mkdir(parents=True, exist_ok=True)
    pictures = torch.rand(2, 3, side, side)
    with torch.no_grad():
        np.savez(parts / "answers.npz", pictures=pictures.numpy(), answer=network(pictures).numpy())
    if form in ("pt2", "all"):
        program = torch.export.export(network, (pictures,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, str(parts / "network.pt2"))
    if form in ("torchscript", "all"):
        torch.jit.trace(network, pictures, check_trace=False).save(str(parts / "network.torchscript"))
    if form in ("weights", "all"):
        torch.save(network.state_dict(), parts / "weights.pt")
        shutil.copyfile(Path(__file__).parent / "torch_networks.py", parts / "torch_networks.py")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, picture: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        x = self.drop(self.norm(self.conv(picture)).relu())
        return x, x.mean((2, 3)) * scale


class Named(Small):
    def forward(self, picture: Tensor, scale: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        first, second = super().forward(picture, scale)
        return {"map": first, "mean": second}


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 4)


def odd(folder: Path) -> None:
    """Files that say something else than a plain network in evaluation mode."""
    small, examples = torch_networks.seeded(Small()), (torch.rand(2, 3, 8, 8), torch.rand(2, 1))
    torch.jit.script(small).save(str(folder / "scripted.pt"))
    torch.jit.script(small.train()).save(str(folder / "scripted_training.pt"))
    torch.jit.trace(small, examples, check_trace=False, strict=False).save(str(folder / "traced_training.pt"))
    torch.export.save(torch.export.export(small, examples), str(folder / "training.pt2"))
    torch.export.save(torch.export.export(small.eval(), examples), str(folder / "fixed.pt2"))
    torch.export.save(torch.export.export(torch_networks.seeded(Named()), examples), str(folder / "named.pt2"))
    torch.jit.trace(Fixed(), torch.rand(2, 4)).save(str(folder / "fixed.pt"))
    torch.save(small, folder / "module.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": weight for name, weight in small.state_dict().items()}},
        folder / "checkpoint.pth",
    )
    torch.save(small.state_dict(), folder / "old.pth", _use_new_zipfile_serialization=False)


def main() -> None:
    warnings.simplefilter("ignore")
    folder, form, *names = sys.argv[1:]
    if form == "odd":
        odd(Path(folder))
    for name in names:
        save(Path(folder), form, name)


if __name__ == "__main__":
    main()
