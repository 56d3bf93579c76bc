"""``recbole-genrec import``: tables of one's own to a dataset."""

from __future__ import annotations

from recbole_genrec.cli.command import PREPARE, Command
from recbole_genrec.cli.options import (
    DatasetNameOption,
    DatasetsFolderOption,
    DuplicatesOption,
    EncodingOption,
    ItemColumnOption,
    KCoreOption,
    MinRatingOption,
    RatingColumnOption,
    SeparatorOption,
    TablesArgument,
    TextColumnsOption,
    TimeColumnOption,
    TimeFormatOption,
    UserColumnOption,
    split_words,
)


def import_data(
    files: TablesArgument,
    name: DatasetNameOption,
    user: UserColumnOption = None,
    item: ItemColumnOption = None,
    time: TimeColumnOption = None,
    text: TextColumnsOption = None,
    time_format: TimeFormatOption = None,
    rating: RatingColumnOption = None,
    min_rating: MinRatingOption = None,
    k_core: KCoreOption = 0,
    duplicates: DuplicatesOption = "keep",
    encoding: EncodingOption = "utf-8",
    separator: SeparatorOption = None,
    data_path: DatasetsFolderOption = "dataset",
) -> None:
    """Make `dataset/NAME` of your own tables, and say what was dropped and why.

    A table with a column of users holds interactions, any other one describes items. Then
    `run --dataset=NAME` needs no other flag.
    """
    from recbole_genrec.data.preparation.own.columns import Columns
    from recbole_genrec.data.preparation.own.importing import ImportOptions, import_tables

    texts: list[str] | None = None
    if text is not None:
        texts = split_words(text)
    columns = Columns(user, item, time, rating, texts)
    options = ImportOptions(k_core, duplicates, min_rating, time_format, encoding, separator)
    print(import_tables(files, name, columns, options, data_path).report())


COMMAND = Command(
    "import",
    import_data,
    PREPARE,
    examples=(
        "recbole-genrec import clicks.csv items.csv --user=customer --item=sku --time=ts "
        "--text=title,brand,price --name=shop",
        "recbole-genrec import clicks.parquet items.jsonl --name=shop --k_core=5",
        "recbole-genrec import clicks.csv products.csv --item=sku,product_code --name=shop",
    ),
)
