"""From a log to a data set: cleaned, cut into blocks, with titles, and with an account of what was left out."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from peso.data.blocks import BlockRules, cut_into_blocks
from peso.data.cleaning import CleaningRules, clean
from peso.data.dataset import Dataset
from peso.data.imported import ImportedData
from peso.data.interactions import ITEM, TIME, USER
from peso.data.item_texts import ItemText, titles_of
from peso.data.item_times import first_times
from peso.data.sources.files import file_record
from peso.data.sources.log_reader import ReadLog
from peso.data.storage import read_facts
from peso.errors import WorkspaceError

RECORD = "import.json"

TextReader = Callable[[Sequence[str]], Mapping[str, ItemText]]
"""Gives what is written about the items of some ids, by id."""


@dataclass(frozen=True)
class ImportRules:
    """What every import of a log is told.

    Attributes:
        cleaning: what stays.
        blocks: how the rest is cut.
    """

    cleaning: CleaningRules = field(default_factory=CleaningRules)
    blocks: BlockRules = field(default_factory=BlockRules)


def make_dataset(
    log: ReadLog, files: Sequence[Path], source: str, rules: ImportRules, read_texts: TextReader
) -> ImportedData:
    """Makes a data set of a log.

    Args:
        log: as read.
        files: it was read from, for the account.
        source: where the data came from, in a few words.
        rules: what stays, and how it is cut.
        read_texts: asked once, for the items that stay.

    Raises:
        DataError: cleaning leaves nothing, the rules do not fit the log, or an item file is wrong.
    """
    cleaned = clean(log.interactions, rules.cleaning)
    kept = cleaned.interactions
    events = kept.events
    blocks = cut_into_blocks(events[TIME].to_numpy(), rules.blocks, kept.has_times)
    texts = read_texts(kept.item_ids)
    dataset = Dataset(
        kept.user_ids,
        kept.item_ids,
        titles_of(kept.item_ids, texts),
        events[USER].to_numpy().astype(np.int64),
        events[ITEM].to_numpy().astype(np.int64),
        blocks.block,
        len(blocks.starts),
        source,
    )
    record = {
        "files": [file_record(path) for path in files],
        "num_rows": log.num_rows,
        "num_rows_set_aside": log.num_rows - log.interactions.num_events,
        "times": None if log.time_format is None else str(log.time_format),
        "cleaning_rules": asdict(rules.cleaning),
        "cleaning": cleaned.records(),
        "block_rules": asdict(rules.blocks),
        "block_starts": [_instant(start, kept.has_times) for start in blocks.starts.tolist()],
        "last_time": _instant(int(events[TIME].to_numpy().max()), kept.has_times),
        "num_items_without_title": dataset.titles.count(""),
    }
    return ImportedData(
        dataset, texts=texts, first_times=first_times(log.interactions, dataset.item_ids), record=record
    )


def _instant(time: int, has_times: bool) -> str | int:
    """In ISO form; where the log has no times, the row."""
    if not has_times:
        return time
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time)).isoformat()


def cuts_behind(data_folder: Path) -> tuple[int, ...]:
    """The cuts of an earlier import of the same log, and one more: a block for everything after its last event.

    Args:
        data_folder: `W/data` of a workspace that was imported from a log with times.

    Returns:
        First instants of blocks 1, 2, ..., microseconds since 1970.

    Raises:
        WorkspaceError: there is no such import.
    """
    path = data_folder / RECORD
    if not path.exists():
        raise WorkspaceError(f"{data_folder.parent} holds no import of a log with times; cut by --every or --cut.")
    record = read_facts(path, "account of an import", {"block_starts": list, "last_time": str})
    try:
        instants = [dt.datetime.fromisoformat(text) for text in [*record["block_starts"][1:], record["last_time"]]]
        cuts = [round(instant.timestamp() * 1_000_000) for instant in instants]
    except (TypeError, ValueError):
        raise WorkspaceError(f"{path} is damaged: its times cannot be read; import the data again.") from None
    return (*cuts[:-1], cuts[-1] + 1)
