"""Which epoch of an RQ-VAE is kept, against the rules in words."""

import pytest
from toy import toy_config, write_dataset

from recbole_genrec.experiments.stored_settings import config_from_plain
from recbole_genrec.tokenizer.epoch_choice import EpochChoice


def look(epoch, distinct, sharing, total, recon, n=100):
    return {
        "epoch": epoch,
        "distinct_ids": distinct,
        "excess_rate": (n - distinct) / n,
        "collision_rate": sharing / n,
        "total": total,
        "recon": recon,
    }


def chosen(rule, looks, start=None):
    choice = EpochChoice(rule, start or look(0, 100, 0, 9.0, 9.0))
    for number, entry in enumerate(looks):
        choice.see_epoch({"recon": entry["recon"]})
        is_best = choice.note(entry)
        assert is_best == (choice.track["best"] is looks[number])
    assert choice.track["curve"][1:] == looks
    return choice.track["best"]["epoch"]


# One large group at epoch 20 (9 of 10 distinct, 2 to a group), many pairs at epoch 30.
LOOKS = [
    look(10, 80, 40, 0.50, 0.50),
    look(20, 91, 10, 0.30, 0.20),
    look(30, 92, 16, 0.31, 0.21),
    look(40, 92, 10, 0.33, 0.20),
    look(50, 90, 20, 0.29, 0.19),
]


@pytest.mark.parametrize(("rule", "epoch"), [("distinct", 30), ("sharing", 40), ("loss", 50)])
def test_the_rules_choose_different_epochs(rule, epoch):
    assert chosen(rule, LOOKS) == epoch


@pytest.mark.parametrize("rule", ["distinct", "sharing", "loss"])
def test_the_untrained_network_never_wins(rule):
    assert chosen(rule, [look(1, 5, 99, 99.0, 99.0)]) == 1


def test_an_epoch_that_has_learned_nothing_does_not_win():
    """The start by k-means leaves few collisions; the first epochs keep them and learn little."""
    early = [look(1, 99, 2, 1.00, 1.00), look(2, 99, 2, 0.95, 0.95)]
    later = [look(3, 90, 20, 0.40, 0.40), look(4, 88, 24, 0.30, 0.30), look(5, 90, 20, 0.2, 0.2)]
    assert chosen("distinct", early) == 2
    assert chosen("distinct", early + later) == 3
    assert chosen("sharing", early + later) == 2, "as earlier versions chose"


def test_the_patience_counts_looks_without_fewer_collisions_or_lower_loss():
    choice = EpochChoice("distinct", look(0, 50, 60, 9.0, 9.0))
    since = []
    for entry in [*LOOKS, look(60, 92, 16, 0.29, 0.19), look(70, 93, 14, 0.29, 0.19)]:
        choice.see_epoch({"recon": entry["recon"]})
        choice.note(entry)
        since.append(choice.track["since"])
    assert since == [0, 0, 0, 1, 0, 1, 0]
    assert choice.track["best"]["epoch"] == 70


def test_a_stored_run_from_before_keeps_the_rule_of_its_time(tmp_path):
    config = toy_config(write_dataset(tmp_path), "TIGER", tokenizer="rqvae")
    assert config["tokenizer_choice"] == "distinct"
    stored = config.plain()
    assert config_from_plain(stored)["tokenizer_choice"] == "distinct"
    del stored["tokenizer_choice"]
    assert config_from_plain(stored)["tokenizer_choice"] == "sharing"
