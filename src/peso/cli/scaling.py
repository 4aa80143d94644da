"""`peso scale ...`: the large jobs on a Ray cluster, of this machine or of many."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peso.cli.items import (
    CodesOption,
    EncoderOption,
    LevelsOption,
    ModelOption,
    QuantizerOption,
    SeedOption,
    VectorsOption,
    print_encoding,
)
from peso.cli.logs import FORMATS, ImportOptions, LogFormat, import_log
from peso.cli.options import (
    JsonOption,
    NewItemShareOption,
    NewSinceOption,
    OnlyOption,
    WithoutOption,
    WorkspaceOption,
    command_of,
    places_for_new,
    print_json,
    require_run,
    show_progress,
)
from peso.cli.running import print_result

if TYPE_CHECKING:
    from peso.scale.batches import Pool

app = typer.Typer(
    help="Do the large jobs on a Ray cluster, of this machine or of many.", no_args_is_help=True, rich_markup_mode=None
)
importing = typer.Typer(
    help="Read a log into a workspace as `peso import` does, its rows parsed by several workers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(importing, name="import")

AddressOption = Annotated[
    str,
    typer.Option(help="Ray cluster: local starts one here; auto joins this machine's; or where its head listens."),
]
WorkersOption = Annotated[
    int | None, typer.Option(help="Processes that work.  [default: as many as there are CPUs for]", min=1)
]
CpusOption = Annotated[int, typer.Option(help="CPUs of a worker.", min=1)]
GpuOption = Annotated[bool, typer.Option("--gpu", help="Give every worker an accelerator.")]


@dataclass(frozen=True)
class ClusterOptions:
    """Where work without accelerators is done."""

    address: AddressOption = "local"
    workers: WorkersOption = None
    cpus: CpusOption = 1


@app.callback()
def _scale() -> None:
    """Do the large jobs on a Ray cluster, of this machine or of many."""


@app.command()
def recommend(
    workspace: WorkspaceOption,
    num_items: Annotated[int, typer.Option("-k", help="Length of the list.", min=1)] = 10,
    run: Annotated[str | None, typer.Option(help="Run id (see `peso runs`).  [default: the newest]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder.  [default: <workspace>/recommendations/<run id>]")
    ] = None,
    new_item_share: NewItemShareOption = None,
    new_since: NewSinceOption = None,
    only: OnlyOption = None,
    without: WithoutOption = None,
    address: AddressOption = "local",
    workers: WorkersOption = None,
    cpus: CpusOption = 1,
    gpu: GpuOption = False,
    json: JsonOption = False,
) -> None:
    """Recommend the next items for all users: the tables of `peso recommend --all`."""
    from peso.scale.cluster import require_ray

    require_ray()
    require_run(workspace, run)

    from peso.data.item_choice import read_item_choice
    from peso.training.all_users import plan_job

    decoding, choice = places_for_new(new_item_share, new_since), read_item_choice(only, without)
    job = plan_job(workspace, num_items, run, output, decoding=decoding, choice=choice)
    with _joined(address, workers, cpus, gpu) as pool:
        from peso.scale.recommending import recommend_in_pool

        folder = recommend_in_pool(job, pool)
    if json:
        print_json({"output": str(folder)})
    else:
        typer.echo(str(folder))


@app.command("run")
def run_stream(
    workspace: WorkspaceOption,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file or preset with everything about the run.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    address: AddressOption = "local",
    workers: WorkersOption = None,
    cpus: CpusOption = 1,
    gpu: GpuOption = False,
    json: JsonOption = False,
) -> None:
    """Train, update and measure as `peso run` does, by several workers; lost ones are replaced."""
    from peso.config import make_config

    chosen = make_config(config)
    with _joined(address, workers, cpus, gpu) as pool:
        from peso.scale.stream import run_stream_in_pool

        folder = run_stream_in_pool(workspace, chosen, pool, resume)
    print_result(folder, json)


@app.command()
def encode(
    workspace: WorkspaceOption,
    encoder: EncoderOption = "tfidf",
    quantizer: QuantizerOption = "rq-kmeans",
    levels: LevelsOption = 4,
    codes: CodesOption = 256,
    model: ModelOption = None,
    vectors: VectorsOption = None,
    seed: SeedOption = 0,
    address: AddressOption = "local",
    workers: WorkersOption = None,
    cpus: CpusOption = 1,
    gpu: GpuOption = False,
    json: JsonOption = False,
) -> None:
    """Give every item a semantic ID as `peso items encode` does, its vector computed by several workers."""
    from peso.semantic_ids.encoding import EncodingRequest

    request = EncodingRequest(encoder, quantizer, (codes,) * levels, seed, model, vectors)
    with _joined(address, workers, cpus, gpu) as pool:
        from peso.scale.encoding import encode_in_pool

        record = encode_in_pool(workspace, request, pool)
    print_encoding(record, json)


@importing.callback()
def _importing() -> None:
    """Read a log into a workspace as `peso import` does, its rows parsed by several workers."""


def _import_log(log: LogFormat, options: ImportOptions, cluster: ClusterOptions) -> None:
    rules = options.rules()
    with _joined(cluster.address, cluster.workers, cluster.cpus, False) as pool:
        from peso.scale.importing import read_log_in_pool

        import_log(log, options, rules, partial(read_log_in_pool, workspace=options.workspace, pool=pool))


for _name, _format in FORMATS.items():
    importing.command(_name)(
        command_of(_import_log, _format.__doc__, log=_format, options=ImportOptions, cluster=ClusterOptions)
    )


@contextmanager
def _joined(address: str, workers: int | None, cpus: int, gpu: bool) -> "Iterator[Pool]":
    from peso.scale.cluster import joined_cluster, require_ray, workers_that_fit

    require_ray()
    show_progress()

    from peso.scale.batches import Pool

    with joined_cluster(address) as num_cpus:
        yield Pool(workers_that_fit(workers, cpus, num_cpus), cpus, int(gpu))
