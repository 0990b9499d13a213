"""The application: verbs, and how mistakes are reported.

Exit codes: 0 ok, 1 a negative result, 2 wrong usage or bad input, told in one line; 130, 143, 129
for Ctrl-C, SIGTERM, SIGHUP.
"""

import io
import sys
from typing import Annotated

import typer

from archspec.cli import (
    ablate,
    bench,
    compare,
    confirm,
    convert,
    convert_model,
    demo,
    doctor,
    evaluate,
    export,
    fidelity,
    fields,
    from_plans,
    init,
    overfit,
    phantom,
    predict,
    report,
    search,
    specs,
    validate,
    verdict,
)
from archspec.cli.interrupts import leave_output, signals_heard
from archspec.cli.refusal import refusal_lines
from archspec.cli.start import SETTINGS, Grouped, start_page
from archspec.cli.usage import usage_line
from blocks.base import SpecError
from blocks.errors import printable, reason

app = typer.Typer(
    cls=Grouped,
    context_settings=SETTINGS,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _group in (
    specs,
    fields,
    validate,
    compare,
    fidelity,
    search,
    report,
    confirm,
    verdict,
    ablate,
    bench,
    overfit,
    init,
    from_plans,
    export,
    evaluate,
    convert,
    convert_model,
    predict,
    phantom,
    doctor,
    demo,
):
    _group.register(app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"archspec-seg {version('archspec-seg')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Declare, cost, search and train medical segmentation networks from one YAML file."""
    if context.invoked_subcommand is None:
        print(start_page())


def _verbs() -> dict[str, typer.core.TyperCommand]:
    """Return all verbs by name."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return group.commands  # type: ignore[return-value]


def _command() -> typer.core.TyperCommand | None:
    """Return the verb that was asked for."""
    verbs = _verbs()
    return next((verbs[word] for word in sys.argv[1:] if word in verbs), None)


def main() -> None:
    """Run the command line; a mistake of the user ends in one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may not be in its encoding
    try:
        with signals_heard():
            # verbs return nothing; the code of a typer.Exit, and 130 for Ctrl-C, come back as one
            code = app(standalone_mode=False)
        if sys.stdout is not None:  # as in `archspec list >&-`
            sys.stdout.flush()
        sys.exit(code)
    except SpecError as error:
        for line in refusal_lines(error, _command(), sys.argv[1:]):
            print(f"archspec: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        print(usage_line(error, sys.argv[1:], _verbs()), file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit("archspec: stopped, since the input ended")
    except BrokenPipeError:  # who reads the output has had enough
        leave_output()
        sys.exit(1)
    except OSError as error:
        leave_output()
        place = error.filename or "cannot read or write"
        print(f"archspec: {printable(f'{place}: {reason(error)}')}", file=sys.stderr)
        sys.exit(2)
