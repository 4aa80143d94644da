"""Writes what a small shop has: log.csv (customer, sku, bought_at), items.csv (item_id, title), and tomorrow's new.csv.

Its customers are simulated (docs/simulated_world.md); from here on the files are treated as any shop's.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from peso.data.simulate import SimulationSettings, simulate

OPENED = datetime(2026, 1, 1, tzinfo=UTC)
DAYS_PER_BLOCK = 30
NEW_TITLES = ["Garage Punk Live Sessions: Amber 0, Volume 9", "Garage Punk Live Sessions: Amber 0, Volume 10"]


def main() -> None:
    """Writes the three files into the folder that is named, made when missing."""
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/tutorial/make_log.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    world = simulate(SimulationSettings(num_users=600, num_items=400, num_blocks=5))
    dataset = world.dataset
    random = np.random.default_rng(0)
    days = (dataset.event_block + random.random(dataset.num_events)) * DAYS_PER_BLOCK
    days = days[np.lexsort((days, dataset.event_user))]  # a customer's purchases stand in the order of their times
    items = np.array(dataset.item_ids)
    pl.DataFrame(
        {
            "customer": np.array(dataset.user_ids)[dataset.event_user],
            "sku": items[dataset.event_item],
            "bought_at": [(OPENED + timedelta(days=day)).isoformat(timespec="seconds") for day in days.tolist()],
        }
    ).sort("bought_at").write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": dataset.item_ids, "title": dataset.titles}).write_csv(folder / "items.csv")
    pl.DataFrame({"item_id": ["new-1", "new-2"], "title": NEW_TITLES}).write_csv(folder / "new.csv")


if __name__ == "__main__":
    main()
