"""Small datasets of events, and what a run on them has to give."""

from __future__ import annotations

import random
from pathlib import Path

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
WITH_HISTORY = "user_id:token\titem_id:token\titem_id_list:token_seq\ttimestamp:float"
PARTS = ("train", "valid", "test")

Event = tuple[str, str, float]


def events(n_users: int = 30, n_items: int = 25, first: int = 1_600_000_000) -> list[Event]:
    """Users that walk along a ring of items; all times differ, by seconds."""
    draw = random.Random(0)
    times = iter(draw.sample(range(first, first + 5000), 13 * n_users))
    rows = []
    for user in range(n_users):
        start = draw.randrange(n_items)
        own = sorted(next(times) for _ in range(draw.randrange(5, 13)))
        for step, time in enumerate(own):
            rows.append((f"u{user}", f"i{(start + step + draw.randrange(2)) % n_items}", time))
    return rows


def write(path: Path, rows: list[Event], header: str = HEADER) -> None:
    """One file of interactions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")


def write_items(folder: Path, name: str, n_items: int = 25) -> None:
    """Titles of the items."""
    lines = [f"i{item}\tsoap no {item}\tbrand{item // 5}" for item in range(n_items)]
    header = "item_id:token\ttitle:token_seq\tbrand:token"
    (folder / name / f"{name}.item").write_text("\n".join([header, *lines]) + "\n")


def sequences(rows: list[Event]) -> dict[str, list[str]]:
    """Items of each user in the order of time, ties in the order of the rows."""
    found: dict[str, list[tuple[float, str]]] = {}
    for user, item, time in rows:
        found.setdefault(user, []).append((float(time), item))
    return {
        user: [item for _, item in sorted(pairs, key=lambda pair: pair[0])]
        for user, pairs in found.items()
    }


def leave_one_out(rows: list[Event]) -> dict[str, list[Event]]:
    """The rows as three files: last of each user, last but one, and the rest, in file order."""
    by_user: dict[str, list[Event]] = {}
    for row in sorted(rows, key=lambda row: row[2]):
        by_user.setdefault(row[0], []).append(row)
    held = {
        "valid": {row for own in by_user.values() for row in own[-2:-1]},
        "test": {row for own in by_user.values() for row in own[-1:]},
    }
    parts = {name: [row for row in rows if row in held[name]] for name in held}
    parts["train"] = [row for row in rows if not any(row in part for part in held.values())]
    return parts


def positions(rows: list[Event]) -> list[Event]:
    """The rows with positions 1, 2, ... of each user as times."""
    count: dict[str, int] = {}
    numbered = []
    for user, item, _ in rows:
        count[user] = count.get(user, 0) + 1
        numbered.append((user, item, count[user]))
    return numbered


def histories(rows: list[Event]) -> dict[str, list[tuple]]:
    """The rows of one file as prefix -> next item, in three parts."""
    found = {part: [] for part in PARTS}
    for user, items in sequences(rows).items():
        for place in range(1, len(items)):
            part = {1: "test", 2: "valid"}.get(len(items) - place, "train")
            found[part].append((user, items[place], " ".join(items[:place]), place + 1))
    return found


def write_parts(folder: Path, parts, header: str = HEADER, name: str = "toy") -> None:
    """The three files of a dataset that comes split."""
    for part, rows in parts.items():
        write(folder / name / f"{name}.{part}.inter", rows, header)


def split(folder: Path, model: str = "SASRec", name: str = "toy", **changes):
    """The split of a model as ``{part: sorted [(user, history, target)]}``, by raw ids."""
    settings = {"data_path": str(folder), "gpu_id": "", "show_progress": False, **changes}
    config = GenRecConfig(model, name, config_dict=settings)
    dataset = create_dataset(config)
    loaders = make_loaders(config, dataset, False)
    found = {}
    for part, loader in zip(PARTS, loaders, strict=True):
        found[part] = sorted(rows_of(loader._dataset))
    return found


def rows_of(data) -> list[tuple[str, tuple[str, ...], str]]:
    """The rows of one part by raw ids, in their order."""
    rows = data.inter_feat
    users = data.id2token(data.uid_field, rows[data.uid_field].numpy())
    items = data.id2token(data.iid_field, rows[data.iid_field].numpy())
    field = data.iid_field + data.config["LIST_SUFFIX"]
    histories = [()] * len(users)
    if field in rows:
        ids = data.field2id_token[data.iid_field]
        pairs = zip(rows[field].numpy(), rows[data.item_list_length_field].tolist(), strict=True)
        histories = [tuple(map(str, ids[row[:length]])) for row, length in pairs]
    return [
        (str(user), history, str(item))
        for user, history, item in zip(users, histories, items, strict=True)
    ]


def expected_split(rows: list[Event], limit: int = 20):
    """Leave-one-out of a sequential model, made from the rows alone."""
    found = {part: [] for part in PARTS}
    for user, items in sequences(rows).items():
        for place in range(1, len(items)):
            # users of two items only train, users of three have no validation row
            from_end = len(items) - 1 - place
            part = "train"
            if from_end == 0 and len(items) > 2:
                part = "test"
            elif from_end == 1 and len(items) > 3:
                part = "valid"
            history = tuple(items[max(0, place - limit) : place])
            found[part].append((user, history, items[place]))
    return {part: sorted(found[part]) for part in PARTS}
