"""The verb `doctor`: of the installation, or of a dataset."""

import json
import warnings
from typing import Annotated

import typer

from archspec.cli.options import Address, Configuration, DataOrNone, PlansName


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(doctor)


def doctor(
    data: DataOrNone = None,
    configuration: Configuration = "3d_fullres",
    plans: PlansName = "nnUNetPlans",
    address: Address = None,
    storage: Annotated[
        str | None,
        typer.Option(help="PostgreSQL server of searches: postgresql://user@host/database"),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Time Triton's scan and mamba-ssm's on each GPU; use the faster."
        ),
    ] = False,
) -> None:
    """Print versions and devices, and run every scan backend; exit code 1 if one needs mending.

    Without --tune GPUs use Triton's scan where it works, however fast others are.

    With --data it reads all cases of that dataset instead. The exit code is 2 if one cannot be
    used, and 1 if a fold trains on a case and validates on one with the same image.

    With --address it looks at each machine of a Ray cluster: versions, and the dataset of --data;
    with --storage at a server. The exit code is 1 if something there would stop a search.
    """
    if address is not None or storage is not None:
        from archspec.nnunet.dataset import find_dataset
        from search.study.cluster import check_cluster

        dataset = None
        if data is not None:
            dataset = find_dataset(data, configuration=configuration, plans_name=plans)
        checked = check_cluster(address, storage, dataset)
        print(json.dumps(checked.to_json(), indent=2) if json_ else checked.text())
        if checked.trouble:
            raise typer.Exit(1)
        return
    if data is not None:
        from archspec.nnunet.dataset import find_dataset
        from archspec.nnunet.examine import examine

        seen = examine(find_dataset(data, configuration=configuration, plans_name=plans))
        print(json.dumps(seen.to_json(), indent=2) if json_ else seen.text())
        if seen.faults or seen.copies:
            raise typer.Exit(2 if seen.faults else 1)
        return
    if tune:
        from archspec.doctor import tune as tune_scans

        tuning = tune_scans()
        print(json.dumps(tuning.to_json(), indent=2) if json_ else tuning.text())
        return
    from archspec.doctor import diagnose

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a warning says stands in the report
        found = diagnose()
    print(json.dumps(found.to_json(), indent=2) if json_ else found.text())
    if found.trouble:
        raise typer.Exit(1)
