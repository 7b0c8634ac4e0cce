"""`kmtl quickstart`."""

from __future__ import annotations

from pathlib import Path

import click

from kmtl.quickstart import Settings

INTERRUPTED = 130  # what shells give for a program that Ctrl-C ended


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("kmtl-quickstart"),
    show_default=True,
    help="Folder for everything that is made.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=Settings.seed,
    show_default=True,
    help="Decides the data split, the initial weights, the order of rows, the search.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=Settings.trials,
    show_default=True,
    help="Trials of the search. More than before continues a finished search.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=Settings.epochs,
    show_default=True,
    help="Epochs of every training.",
)
@click.option("--fresh", is_flag=True, help="Delete what an earlier run left in --out.")
@click.pass_context
def command(
    context: click.Context, out: Path, seed: int, trials: int, epochs: int, fresh: bool
) -> None:
    """Do the whole job on handwritten digits: build, search, train, compare, export.

    Run again after Ctrl-C, a kill or a crash, it goes on where it was.
    """
    from rich.console import Console

    import kmtl
    from kmtl import quickstart
    from kmtl.cli._progress import ProgressDisplay
    from kmtl.cli._quiet import import_backend

    settings = Settings(seed=seed, trials=trials, epochs=epochs)
    console = Console(highlight=False)
    try:
        if fresh:
            quickstart.remove(out)
        result = quickstart.finished(out, settings)
        if result is None:
            console.print(f"Everything goes to {out.absolute()}", soft_wrap=True)
            import_backend()
            with ProgressDisplay(console).shown() as display:
                result = quickstart.run(out, settings, on_event=display)
        else:
            console.print("Finished before; nothing was repeated.")
    except KeyboardInterrupt:
        console.print("\nStopped. Run the same command again to go on from here.")
        context.exit(INTERRUPTED)
    except (quickstart.OtherSettingsError, kmtl.DamagedFileError) as error:
        raise click.UsageError(str(error)) from error
    console.print()
    console.print(result.summary(), soft_wrap=True, markup=False)
