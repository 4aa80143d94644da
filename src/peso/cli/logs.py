"""Logs of rows as the command line asks for them: what each format is told, and what every import is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

import typer

from peso.cli.filling import fill
from peso.cli.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from peso.data.imported import ImportedData
    from peso.data.importing import ImportRules
    from peso.data.item_texts import ItemText
    from peso.data.sources.bad_rows import Rejects
    from peso.data.sources.log_reader import LogReader

LogArgument = Annotated[Path, typer.Argument(help="File, or folder of files; .gz and .zst are read as they are.")]


@dataclass(frozen=True)
class ImportOptions:
    """Where a log goes, what of it stays and how it is cut."""

    workspace: WorkspaceOption
    min_rating: Annotated[float | None, typer.Option(help="Leave out events with a lower rating.")] = None
    min_user_events: Annotated[int, typer.Option(help="Leave out users with fewer events, until stable.", min=2)] = 2
    min_item_events: Annotated[int, typer.Option(help="Leave out items with fewer events, until stable.", min=1)] = 1
    base_share: Annotated[
        float | None, typer.Option(help="Share of the events in block 0.  [default: 0.6]", min=0.01, max=0.99)
    ] = None
    updates: Annotated[int | None, typer.Option(help="Later blocks, of equal share.  [default: 4]", min=1)] = None
    every: Annotated[
        str | None,
        typer.Option(help="A later block per day, week or month, or per so many events, instead of --updates."),
    ] = None
    cut: Annotated[
        list[str] | None, typer.Option(help="First day of block 1; again for block 2, and so on; instead of shares.")
    ] = None
    like: Annotated[
        Path | None,
        typer.Option(
            help="Workspace of an earlier import of this log: the same cuts, and a block for all that came since."
        ),
    ] = None
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Set bad rows aside in rejects.jsonl instead of stopping at them.")
    ] = False
    json: JsonOption = False

    def rules(self) -> "ImportRules":
        """What stays and how it is cut.

        Raises:
            DataError: the options contradict each other, or a date cannot be read.
            WorkspaceError: `--like` names no earlier import.
        """
        from peso.data.blocks import BlockRules, read_cuts, read_every
        from peso.data.cleaning import CleaningRules
        from peso.data.importing import ImportRules, cuts_behind
        from peso.errors import DataError

        if sum(bool(given) for given in (self.every, self.cut, self.like)) > 1:
            raise DataError("--every, --cut and --like each say where blocks begin; give one of them.")
        self._check_shares()
        cuts = cuts_behind(self.like / "data") if self.like is not None else read_cuts(self.cut or ())
        blocks = BlockRules(
            BlockRules.base_share if self.base_share is None else self.base_share,
            BlockRules.num_updates if self.updates is None else self.updates,
            read_every(self.every),
            cuts,
        )
        return ImportRules(CleaningRules(self.min_rating, self.min_user_events, self.min_item_events), blocks)

    def _check_shares(self) -> None:
        from peso.errors import DataError

        given = {"--every": self.every, "--cut": self.cut, "--like": self.like}
        cutter = next((name for name, value in given.items() if value), None)
        if cutter is not None and self.updates is not None:
            raise DataError(f"--updates counts blocks of equal share, and {cutter} cuts otherwise; give one of them.")
        if cutter in ("--cut", "--like") and self.base_share is not None:
            raise DataError(f"--base-share and {cutter} each say where block 0 ends; give one of them.")


class LogFormat(Protocol):
    """A format; its fields are the options of its commands, its docstring their help."""

    def imported(self, rules: "ImportRules", rejects: "Rejects", read: "LogReader") -> "ImportedData":
        """Reads a log and makes a data set of it.

        Args:
            rules: what stays, and how it is cut.
            rejects: takes bad rows.
            read: reads the rows.

        Raises:
            DataError: see `peso.data.importing.make_dataset` and the format's reader.
        """
        ...


@dataclass(frozen=True)
class Table:
    """Read your own log: .csv, .tsv, .jsonl or .parquet, with columns of any names."""

    log: LogArgument
    user: Annotated[str, typer.Option(help="Column of the user's id.", show_default=False)]
    item: Annotated[str, typer.Option(help="Column of the item's id.", show_default=False)]
    time: Annotated[
        str | None, typer.Option(help="Column of the time; without it, rows stand in the order of time.")
    ] = None
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None
    time_unit: Annotated[str | None, typer.Option(help="Of numbers since 1970: s, ms, us or ns.  [default: seen]")] = (
        None
    )
    time_format: Annotated[str | None, typer.Option(help="Of text, such as %d.%m.%Y %H:%M.  [default: seen]")] = None
    separator: Annotated[str | None, typer.Option(help="Of text tables.  [default: , or in .tsv a tab]")] = None
    names: Annotated[
        str | None, typer.Option(help="Names of all columns, with commas, where a text table has no header line.")
    ] = None
    items: Annotated[
        Path | None, typer.Option(help=".csv, .jsonl or .parquet with item_id, title and, if known, text, categories.")
    ] = None

    def imported(self, rules: "ImportRules", rejects: "Rejects", read: "LogReader") -> "ImportedData":
        """See `LogFormat.imported`."""
        from peso.data.importing import make_dataset
        from peso.data.sources.item_files import read_item_table
        from peso.data.sources.raw_log import TableLayout
        from peso.data.sources.row_batch import Columns
        from peso.data.sources.table import read_table
        from peso.data.sources.times import choose_time_format

        layout = TableLayout(
            Columns(self.user, self.item, self.time, self.rating),
            choose_time_format(self.time_unit, self.time_format),
            self.separator,
            None if self.names is None else tuple(self.names.split(",")),
        )
        texts = {} if self.items is None else read_item_table(self.items)
        log, files = read_table(self.log, layout, rejects, read)
        return make_dataset(log, files, f"table {self.log.name}", rules, lambda _: texts)


@dataclass(frozen=True)
class Amazon2018:
    """Read Amazon Reviews of 2014 or 2018: JSON lines, times in seconds."""

    release: ClassVar[Literal["2018", "2023"]] = "2018"
    log: LogArgument
    items: Annotated[Path | None, typer.Option(help="File of item metadata (meta_*), for titles and texts.")] = None

    def imported(self, rules: "ImportRules", rejects: "Rejects", read: "LogReader") -> "ImportedData":
        """See `LogFormat.imported`."""
        from peso.data.importing import make_dataset
        from peso.data.sources.amazon import read_amazon_reviews
        from peso.data.sources.item_files import read_amazon_items

        log, files = read_amazon_reviews(self.log, self.release, rejects, read)

        def texts(item_ids: "Sequence[str]") -> "Mapping[str, ItemText]":
            return {} if self.items is None else read_amazon_items(self.items, set(item_ids), rejects)

        return make_dataset(log, files, f"Amazon Reviews {self.release}, {self.log.name}", rules, texts)


@dataclass(frozen=True)
class Amazon2023(Amazon2018):
    """Read Amazon Reviews of 2023: JSON lines, times in milliseconds."""

    release: ClassVar[Literal["2018", "2023"]] = "2023"


@dataclass(frozen=True)
class MovieLens:
    """Read a MovieLens release, 100K to 32M."""

    folder: Annotated[Path, typer.Argument(help="Unpacked release: ratings.csv, ratings.dat or u.data, and movies.")]

    def imported(self, rules: "ImportRules", rejects: "Rejects", read: "LogReader") -> "ImportedData":
        """See `LogFormat.imported`."""
        from peso.data.importing import make_dataset
        from peso.data.sources.movielens import read_movielens

        log, texts, files = read_movielens(self.folder, rejects, read)
        return make_dataset(log, files, f"MovieLens {self.folder.name}", rules, lambda _: texts)


FORMATS: dict[str, type[LogFormat]] = {
    "table": Table,
    "amazon-2018": Amazon2018,
    "amazon-2023": Amazon2023,
    "movielens": MovieLens,
}
"""By the name of their commands."""


def import_log(log: LogFormat, options: ImportOptions, rules: "ImportRules", read: "LogReader") -> None:
    """Fills a workspace with a log, and says what is in it.

    Args:
        log: the log.
        options: of the import.
        rules: what `options.rules` gave.
        read: reads the rows, here or on many machines.

    Raises:
        PesoError: the log cannot be read, the rules do not fit it, or the workspace holds other data.
    """
    from peso.data.sources.bad_rows import collect_rejects

    with collect_rejects(options.workspace, options.lenient) as rejects:
        fill(options.workspace, log.imported(rules, rejects, read), options.json)
