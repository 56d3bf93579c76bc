"""A small shop that the package makes itself: 50 products with titles, 200 customers.

Nothing is downloaded, and the same seed gives the same files. There is something to learn: products
belong to hobbies, a customer has two of them and buys what comes next in one, mostly in order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_genrec.data.preparation.writing import INTERACTIONS, write_table

NAME = "toy-shop"
FIELDS = ("title", "hobby")
SEED = 2020
N_CUSTOMERS = 200
SHORTEST, LONGEST = 6, 14
"""Purchases of a customer."""
IN_ORDER = 0.75
"""Share of the purchases that follow the last one of the same hobby."""
ANYTHING = 0.05
"""Share of the purchases that follow nothing."""
FIRST_DAY = 1_700_000_000
DAY = 86_400

HOBBIES = {
    "running": ["Trail running shoes", "Merino running socks", "Hydration vest", "Running watch",
                "Marathon training plan"],
    "coffee": ["Espresso beans", "Burr coffee grinder", "Espresso machine", "Milk frothing jug",
               "Double walled cups"],
    "painting": ["Watercolour set", "Sable brushes", "Cold pressed paper", "Table easel",
                 "Picture frame"],
    "garden": ["Tomato seeds", "Seedling trays", "Potting soil", "Copper watering can",
               "Pruning shears"],
    "camping": ["Two person tent", "Down sleeping bag", "Inflatable sleeping mat", "Gas stove",
                "Titanium cooking pot"],
    "baking": ["Bread flour", "Proofing basket", "Cast iron dutch oven", "Dough scraper",
               "Bread knife"],
    "photography": ["Mirrorless camera", "Portrait lens", "Carbon tripod", "Camera backpack",
                    "Photo printer"],
    "cycling": ["Gravel bike", "Cycling helmet", "Bike computer", "Bottle cage", "Chain lubricant"],
    "music": ["Acoustic guitar", "Guitar strings", "Clip-on tuner", "Leather guitar strap",
              "Songbook for beginners"],
    "sewing": ["Sewing machine", "Cotton thread set", "Fabric scissors", "Linen fabric",
               "Dressmaking patterns"],
}  # fmt: skip


def write_toy_shop(data_path: str | Path, seed: int = SEED) -> Path:
    """Write ``<data_path>/toy-shop/toy-shop.inter`` and ``.item``.

    Args:
        data_path: folder of all datasets.
        seed: of the purchases.

    Returns:
        The folder of the shop.
    """
    folder = Path(data_path) / NAME
    products = _products()
    kinds = {"item_id": "token", "title": "token_seq", "hobby": "token"}
    write_table(folder / f"{NAME}.item", kinds, products)

    events = []
    generator = np.random.default_rng(seed)
    for customer in range(1, N_CUSTOMERS + 1):
        for number, product in enumerate(_purchases(generator)):
            time = FIRST_DAY + DAY * (customer + 3 * number)
            events.append([f"c{customer}", products[product][0], str(time)])
    write_table(folder / f"{NAME}.inter", INTERACTIONS, events)
    return folder


def _products() -> list[tuple[str, str, str]]:
    """Id, title and hobby of each product; those of a hobby follow each other."""
    products: list[tuple[str, str, str]] = []
    for hobby, titles in HOBBIES.items():
        for title in titles:
            products.append((f"p{len(products) + 1}", title, hobby))
    return products


def _purchases(generator: np.random.Generator) -> list[int]:
    """What a customer buys, oldest first, as places in the list of products."""
    width = len(next(iter(HOBBIES.values())))
    hobbies = generator.choice(len(HOBBIES), size=2, replace=False)
    steps = generator.integers(0, width, size=2)
    purchases = []
    for _ in range(generator.integers(SHORTEST, LONGEST + 1)):
        draw = generator.random()
        if draw < ANYTHING:
            purchases.append(int(generator.integers(len(HOBBIES) * width)))
            continue
        which = int(draw > 0.5)
        if generator.random() < IN_ORDER:
            steps[which] = (steps[which] + 1) % width
        else:
            steps[which] = generator.integers(width)
        purchases.append(int(hobbies[which] * width + steps[which]))
    return purchases
