"""`plimsoll prove A B --images DIR`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core.target import Target
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from rich.console import Console

    from plimsoll.core.budget import Budget as BudgetLimits
    from plimsoll.inference.cascade import CascadePredictor
    from plimsoll.prove import Layer, Proof
    from plimsoll.prove.contract import ContractCheck

_SHOW_AFTER_S = 0.5
_LAYERS_SHOWN = 12
_BAR = 24


def prove(  # noqa: PLR0913 - each parameter is an option of the command
    reference: Annotated[
        str, typer.Argument(metavar="A", help="The reference: a zoo name, a bundle, or a model file with --spec-a.")
    ],
    other: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="The model to prove, likewise. A bare model file without --spec-b gets the reference's Spec.",
        ),
    ],
    images: Annotated[list[str], options.images("Your pictures")],
    labels: options.Labels = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            min=0.0,
            max=1.0,
            help="Compare decisions at this score; may be repeated. Default: the Spec's threshold.",
        ),
    ] = None,
    budget: options.Budget = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also compare layer by layer, to find where the deviation enters.")
    ] = False,
    json_: options.Json = False,
    preprocessing_a: Annotated[
        options.PreprocessingName | None,
        options.preprocessing(
            "--preprocessing-a", "How pictures become A's tensors. Default: the bundle's, else reference."
        ),
    ] = None,
    preprocessing_b: Annotated[
        options.PreprocessingName | None, options.preprocessing("--preprocessing-b", "Likewise for B.")
    ] = None,
    target_a: Annotated[
        Target | None,
        options.target(
            "--target-a", "A's runtime:device:precision. Default: the bundle's, else onnxruntime:cpu:float32."
        ),
    ] = None,
    target_b: Annotated[Target | None, options.target("--target-b", "Likewise for B.")] = None,
    spec_a: Annotated[
        Path | None, typer.Option("--spec-a", metavar="FILE", help="The Spec of A, a bare model file.")
    ] = None,
    spec_b: Annotated[
        Path | None, typer.Option("--spec-b", metavar="FILE", help="The Spec of B, a bare model file.")
    ] = None,
) -> None:
    """Prove that B answers as A does on your pictures, and say which stage differs if it doesn't.

    Exits with code 1 if the budget is exceeded.
    """
    from plimsoll.cli.output import Progress
    from plimsoll.core.budget import Budget
    from plimsoll.errors import CheckError
    from plimsoll.inference.cascade_bundle import open_whole
    from plimsoll.inference.images import check_exist, find_images
    from plimsoll.inference.predictor import open_model
    from plimsoll.prove import prove as run
    from plimsoll.prove.contract import check_contract

    limits = Budget.parse(budget) if budget else None
    check_exist(images)
    with ExitStack() as stack:
        if (pair := [open_whole(reference), open_whole(other)])[0] is not None and pair[1] is not None:
            _prove_cascade(stack.enter_context(pair[0]), stack.enter_context(pair[1]), images, limits, json_=json_)
            return
        first = stack.enter_context(open_model(reference, spec_a, target=target_a, preprocessing=preprocessing_a))
        second = stack.enter_context(open_model(other, spec_b, target=target_b, preprocessing=preprocessing_b))
        if second.model.spec is None:
            second.model = replace(second.model, spec=first.model.require_spec())
        truths = options.labels_of(labels, first.model.require_spec(), images)
        formats = first.model.require_spec().input.decode.formats
        pictures = list(find_images(images, formats))
        contract = check_contract(first, [str(picture) for picture in pictures], truths) if truths else None
        progress = Progress(None, images, _SHOW_AFTER_S, formats)
        stack.callback(progress.close)
        proof = run(
            first,
            second,
            pictures,
            labels=truths,
            thresholds=threshold,
            budget=limits,
            layers=layers,
            advance=progress.advance,
        )
        progress.close()
    if json_:
        typer.echo(proof.report().to_json())
    else:
        _show(proof, contract)
    if not proof.passed:
        raise CheckError(*proof.refusal())


def _prove_cascade(
    first: CascadePredictor, second: CascadePredictor, images: list[str], limits: BudgetLimits | None, *, json_: bool
) -> None:
    from rich.console import Console
    from rich.text import Text

    from plimsoll.cli.output import checks_table
    from plimsoll.errors import CheckError
    from plimsoll.inference.images import find_images
    from plimsoll.prove.cascade import prove_cascade

    proof = prove_cascade(first, second, list(find_images(images, first.spec.input.decode.formats)), limits)
    if json_:
        typer.echo(proof.report().to_json())
    else:
        console = Console(highlight=False)
        mark = Text("✓ proven  ", style="bold green") if proof.passed else Text("✗ not proven  ", style="bold red")
        console.print(mark + Text(proof.headline, style="bold"), soft_wrap=True)
        console.print(checks_table(proof.checks))
        for line in proof.network_lines():
            console.print(Text(printable(line, 500)), soft_wrap=True)
        for path, reason in proof.unanswered[:5]:
            console.print(Text(f"  {printable(path, 300)}: {printable(reason, 300)}", style="dim"), soft_wrap=True)
    if not proof.passed:
        raise CheckError(f"{second.spec.name}: the whole cascade misses the budget", "The table says by how much.")


def _show(proof: Proof, contract: ContractCheck | None) -> None:
    from rich.console import Console
    from rich.text import Text

    from plimsoll.cli.output import checks_table

    console = Console(highlight=False)
    mark = Text("✓ proven  ", style="bold green") if proof.passed else Text("✗ not proven  ", style="bold red")
    console.print(mark + Text(proof.headline, style="bold"), soft_wrap=True)
    console.print(
        Text(f"{proof.other}\nagainst {proof.reference}, on {proof.pictures:,} pictures", style="dim"), soft_wrap=True
    )
    if contract is not None and contract.count:
        # A reference that is wrong itself is no yardstick, whatever is proven against it.
        problem = contract.problem
        words = f"✗ Look at the reference first: {problem}" if problem else f"Against your labels {contract.in_words}."
        console.print(Text(printable(words, 1000), style="bold red" if problem else ""), soft_wrap=True)
    console.print()
    console.print(checks_table(proof.checks))
    for line in _summary(proof):
        console.print(Text(line), soft_wrap=True)
    if proof.cause:
        console.print(Text(f"{proof.cause[0].upper()}{proof.cause[1:]}."), soft_wrap=True)
    _show_failures(console, proof)
    if proof.layers and proof.asked_for_layers:
        _show_layers(console, proof.layers)


def _summary(proof: Proof) -> list[str]:
    """Return what else there is to say of the answers, beside the checks."""
    lines = [f"{printable(note, 500)}." for note in (proof.comparison.notes if proof.comparison is not None else ())]
    checked = {check.name for check in proof.checks}
    lines += [
        f"{figure[0].upper()}{figure[1:]}." for figure in proof.unlimited_figures(checked) if proof.outputs.columns
    ]
    alone = [
        f"{name} alone {part.mean:.2g}"
        for name, part in (("preprocessing", proof.preprocessing_only), ("network", proof.network_only))
        if part is not None and part.scores is not None
    ]
    if alone:
        lines.append(f"Of the mean: {', '.join(alone)}.")
    return lines


def _show_failures(console: Console, proof: Proof) -> None:
    from rich.text import Text

    if proof.failures:
        console.print(Text(f"{len(proof.failures):,} pictures were not answered by both:", style="yellow"))
    for failure in proof.failures[:5]:
        which = "neither" if failure.reference and failure.other else "A failed" if failure.reference else "B failed"
        console.print(
            Text(
                f"  {printable(failure.path, 300)}: {which}: {printable(failure.reference or failure.other, 300)}",
                style="dim",
            ),
            soft_wrap=True,
        )


def _show_layers(console: Console, layers: tuple[Layer, ...]) -> None:
    """Show the layers with the least signal to noise, in the network's order, and where each stands in it."""
    from rich.table import Table
    from rich.text import Text

    least = sorted(sorted(range(len(layers)), key=lambda index: layers[index].snr_db)[:_LAYERS_SHOWN])
    finite = [layer.snr_db for layer in layers if abs(layer.snr_db) < float("inf")]
    largest = max(finite, default=1.0) or 1.0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("layer", "signal to noise", "", "value", "operator"):
        table.add_column(
            heading, justify="right" if heading in {"layer", "signal to noise"} else "left", no_wrap=heading != "value"
        )
    for index in least:
        layer = layers[index]
        share = min(1.0, max(0.0, layer.snr_db / largest))
        bar = Text("━" * round(share * _BAR), style="cyan")
        table.add_row(
            f"{index + 1} of {len(layers)}",
            f"{layer.snr_db:.1f} dB",
            bar,
            printable(layer.name, 300),
            printable(layer.operator, 300),
        )
    console.print()
    console.print(
        Text(
            f"The {len(least)} layers with the least signal to noise, in the network's order (--json has all):",
            style="bold",
        ),
        soft_wrap=True,
    )
    console.print(table)
