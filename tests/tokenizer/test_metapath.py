"""META ID's identifiers: walks, skip-gram, joint clusters, ranks, against plain definitions."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from toy import toy_config, write_dataset

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer import NewItems, make_tokenizer
from recbole_genrec.tokenizer.quantiser.node_clusters import NodeClusters, ranks
from recbole_genrec.tokenizer.skip_gram import SkipGram
from recbole_genrec.tokenizer.walks import BipartiteGraph

SMALL = {
    "tokenizer": "metapath",
    "codebook_sizes": [6],
    "walks_per_node": 4,
    "walk_length": 10,
    "path_dim": 8,
    "path_window": 2,
    "tokenizer_epochs": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def content_of(sequences, items=(), users=()):
    """Content of the items of ``sequences`` and of others, which have no training edge."""
    tokens = sorted({item for sequence in sequences.values() for item in sequence} | set(items))
    people = ["[PAD]", *sorted({*sequences, *users})]
    source = SimpleNamespace(sequences=sequences, fingerprint="made up")
    return ItemContent(["[PAD]", *tokens], ["", *tokens], interactions=source, users=people)


def fitted(content, seed=1, **changes):
    defaults = {
        "path_negatives": 5,
        "tokenizer_lr": 0.025,
        "tokenizer_batch_size": 32,
        "clustering": "spherical",
        "balanced": False,
        "fine_headroom": 0,
        "device": "cpu",
        "show_progress": False,
    }
    tokenizer = make_tokenizer({**defaults, **SMALL, **changes}, seed)
    return tokenizer, tokenizer.fit(content)


def blocks(n_blocks=4, users=15, items=12, length=8, seed=0):
    """Users of a block choose among its items alone."""
    draw = np.random.default_rng(seed)
    return {
        f"u{block}-{user}": [
            f"i{block}-{item}" for item in draw.choice(items, length, replace=False)
        ]
        for block in range(n_blocks)
        for user in range(users)
    }


# --- walks ------------------------------------------------------------------------------------


def test_walks_follow_edges_take_turns_and_choose_uniformly():
    graph = BipartiteGraph.of({"u": ["a", "b", "a"], "v": ["b"], "w": []})
    assert graph.items == ["a", "b"] and graph.users == ["u", "v"] and graph.n_nodes == 4
    walks = graph.walks(500, 6, seed=3)
    assert walks.shape == (2000, 6) and walks.dtype == np.int32
    assert Counter(walks[:, 0].tolist()) == dict.fromkeys(range(4), 500)
    edges = {(0, 2), (1, 2), (1, 3)}
    for left, right in zip(walks[:, :-1].ravel(), walks[:, 1:].ravel(), strict=True):
        assert (min(left, right), max(left, right)) in edges
    steps = walks[:, 1:][walks[:, :-1] == 2]
    assert abs((steps == 0).mean() - 0.5) < 0.03, "an edge that occurs twice counts once"
    assert np.array_equal(walks, graph.walks(500, 6, seed=3))
    assert not np.array_equal(walks, graph.walks(500, 6, seed=4))


# --- skip-gram --------------------------------------------------------------------------------


def test_the_loss_is_that_of_every_pair():
    torch.manual_seed(0)
    network = SkipGram(7, 5).double()
    walks, negatives = torch.randint(0, 7, (3, 6)), torch.randint(0, 7, (3, 4))
    v, w = network.centres.weight, network.contexts.weight
    losses = []
    for walk, others in zip(walks.tolist(), negatives.tolist(), strict=True):
        for place, x in enumerate(walk):
            for other, y in enumerate(walk):
                if other == place or abs(other - place) > 2:
                    continue
                loss = -math.log(torch.sigmoid(v[x] @ w[y]))
                drawn = [-math.log(torch.sigmoid(-v[x] @ w[n])) for n in others]
                losses.append(loss + 5 * sum(drawn) / len(drawn))
    expected = sum(losses) / len(losses)
    assert float(network(walks, negatives, 2, 5)) == pytest.approx(expected, rel=1e-9)


# --- clusters and ranks -----------------------------------------------------------------------


def test_ranks_count_by_distance_and_equal_distances_by_place():
    labels = torch.tensor([1, 0, 1, 1, 0])
    distance = torch.tensor([0.5, 0.1, 0.2, 0.2, 0.0])
    assert ranks(labels, distance).tolist() == [2, 1, 0, 1, 0]


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_clusters_against_plain_definitions(spherical, balanced):
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    clusters = NodeClusters.fit(x, 7, spherical)
    codes = clusters.codes(x, balanced)
    distances = clusters.distances(x)
    if spherical:
        torch.testing.assert_close(clusters.centroids.norm(dim=1), torch.ones(7).double())
        cosine = torch.nn.functional.cosine_similarity(
            x.double().unsqueeze(1), clusters.centroids, dim=-1
        )
        torch.testing.assert_close(distances, 1 - cosine)
    else:
        torch.testing.assert_close(distances, torch.cdist(x.double(), clusters.centroids) ** 2)
    if balanced:
        assert int(torch.bincount(codes[:, 0]).max()) <= 29
    else:
        assert torch.equal(codes[:, 0], distances.argmin(1))
    for number in range(7):
        members = torch.nonzero(codes[:, 0] == number).flatten()
        nearest_first = members[distances[members, number].argsort(stable=True)]
        assert codes[nearest_first, 1].tolist() == list(range(len(members)))


# --- the tokenizer ----------------------------------------------------------------------------


def test_planted_communities_are_found_and_users_share_them():
    sequences = blocks()
    tokenizer, codes = fitted(
        content_of(sequences), codebook_sizes=[4], walks_per_node=10, tokenizer_epochs=5
    )
    users, items = tokenizer.user_codes, codes
    names = [*items.tokens[1:], *users.tokens[1:]]
    clusters = torch.cat([items.codes[1:, 0], users.codes[1:, 0]]).tolist()
    block = [name[1] for name in names]
    assert normalized_mutual_info_score(block, clusters) > 0.9
    of_block = {
        token[1]: int(row[0]) for token, row in zip(items.tokens[1:], items.codes[1:], strict=True)
    }
    shared = [
        of_block[name[1]] == int(row[0])
        for name, row in zip(users.tokens[1:], users.codes[1:], strict=True)
    ]
    assert np.mean(shared) > 0.9


def test_pairs_are_unique_over_users_and_items_and_ranks_contiguous():
    tokenizer, items = fitted(content_of(blocks(), items=["x", "y"], users=["z"]))
    users = tokenizer.user_codes
    assert not items.codes[0].any() and not users.codes[0].any()
    pairs = torch.cat([items.codes[1:], users.codes[1:]]).tolist()
    assert len(set(map(tuple, pairs))) == len(pairs)
    members: dict[int, list[int]] = {}
    for cluster, rank in pairs:
        members.setdefault(cluster, []).append(rank)
    assert all(sorted(found) == list(range(len(found))) for found in members.values())
    largest = max(map(len, members.values()))
    assert items.sizes == users.sizes == (7, largest)
    assert tokenizer.entities(items).shared


def test_rank_0_is_the_member_nearest_to_its_centre():
    tokenizer, items = fitted(content_of(blocks()))
    users = tokenizer.user_codes
    vectors = torch.cat([tokenizer.item_vectors[1:], tokenizer.user_vectors[1:]])
    item_codes = items.aligned(tokenizer.item_tokens).codes
    codes = torch.cat([item_codes[1:], users.codes[1:]])
    distances = tokenizer.clusters.distances(vectors)
    for number in range(tokenizer.n_clusters):
        members = torch.nonzero(codes[:, 0] == number).flatten()
        first = members[codes[members, 1] == 0]
        assert distances[first, number].item() == distances[members, number].min()


def test_nodes_without_an_edge_sit_in_the_extra_cluster():
    tokenizer, items = fitted(content_of(blocks(), items=["y", "x"], users=["z"]))
    row = dict(zip(items.tokens, items.codes.tolist(), strict=True))
    people = dict(
        zip(tokenizer.user_codes.tokens, tokenizer.user_codes.codes.tolist(), strict=True)
    )
    extra = tokenizer.n_clusters
    assert [row["x"], row["y"], people["z"]] == [[extra, 0], [extra, 1], [extra, 2]]
    assert tokenizer.quality["items_without_interaction"] == 2
    assert tokenizer.quality["users_without_interaction"] == 1
    assert not tokenizer.side_vectors()[extra].any()
    assert (tokenizer.side_vectors()[:extra].norm(dim=1) - 1).abs().max() < 1e-6


def test_the_same_seed_gives_the_same_codes_whatever_the_order_of_items():
    sequences = blocks(seed=2)
    _, first = fitted(content_of(sequences))
    _, second = fitted(content_of(sequences))
    assert torch.equal(first.codes, second.codes)
    content = content_of(dict(reversed(sequences.items())))
    content.tokens = ["[PAD]", *reversed(content.tokens[1:])]
    _, turned = fitted(content)
    assert torch.equal(turned.codes[1:].flip(0), first.codes[1:])
    _, other = fitted(content_of(sequences), seed=2)
    assert not torch.equal(other.codes, first.codes)


def test_new_items_take_free_ranks_near_their_users():
    sequences = blocks()
    tokenizer, items = fitted(content_of(sequences), fine_headroom=2, codebook_sizes=[4])
    token = items.tokens[1]
    users = [user for user, sequence in sequences.items() if token in sequence]
    rows = [tokenizer.user_codes.tokens.index(user) for user in users]
    mean = tokenizer.user_vectors[rows].mean(0)
    cluster = int(tokenizer.clusters.distances(mean.unsqueeze(0)).argmin())
    taken = torch.cat([items.codes[1:], tokenizer.user_codes.codes[1:]])
    size = int((taken[:, 0] == cluster).sum())
    codes, moved = tokenizer.place(
        NewItems(["a", "b"], users=[users, users]), items.codes[1:], items.sizes
    )
    assert codes.tolist() == [[cluster, size], [cluster, size + 1]] and moved == 0
    by_vector, _ = tokenizer.place(NewItems(["a"], mean.unsqueeze(0)), items.codes[1:], items.sizes)
    assert by_vector.tolist() == [[cluster, size]]
    assert tokenizer.encode(NewItems(["a"], users=[users])).tolist() == [[cluster, 0]]
    nobody, _ = tokenizer.place(NewItems(["a"], users=[[]]), items.codes[1:], items.sizes)
    assert nobody.tolist() == [[tokenizer.n_clusters, 0]]
    with pytest.raises(ConfigError, match="users who chose it"):
        tokenizer.place(NewItems(["a"]), items.codes[1:], items.sizes)
    with pytest.raises(ConfigError, match="knew none of the users of a new item \\(nobody\\)"):
        tokenizer.encode(NewItems(["a"], users=[["nobody"]]))
    some_new, _ = tokenizer.place(
        NewItems(["a"], users=[["nobody", *users]]), items.codes[1:], items.sizes
    )
    assert some_new.tolist() == [[cluster, size]]
    with pytest.raises(ConfigError, match="finite numbers"):
        tokenizer.encode(NewItems(["a"], torch.ones(1, 3)))


def test_a_full_cluster_passes_new_items_on():
    tokenizer, items = fitted(content_of(blocks()), codebook_sizes=[4])
    taken = torch.cat([items.codes[1:], tokenizer.user_codes.codes[1:]])
    full = int(torch.bincount(taken[:, 0]).argmax())
    vector = tokenizer.clusters.centroids[full].float().unsqueeze(0)
    codes, moved = tokenizer.place(NewItems(["a"], vector), items.codes[1:], items.sizes)
    assert codes[0, 0] != full and moved == 1
    everything = torch.cartesian_prod(torch.arange(items.sizes[0]), torch.arange(items.sizes[1]))
    with pytest.raises(ConfigError, match="fine_headroom"):
        tokenizer.place(NewItems(["a"], vector), everything, items.sizes)


def test_state_survives_and_damage_is_named(tmp_path):
    tokenizer, items = fitted(content_of(blocks()))
    tokenizer.save(tmp_path / "kept")
    again = make_tokenizer({**tokenizer.config}, 1)
    again.load(tmp_path / "kept")
    assert torch.equal(again.user_codes.codes, tokenizer.user_codes.codes)
    new = NewItems(["a"], torch.ones(1, 8))
    assert torch.equal(again.encode(new), tokenizer.encode(new))

    tensors, meta = load_artefact(tmp_path / "kept")
    tensors["user_vectors"] = tensors["user_vectors"][:-1].clone()
    save_artefact(tmp_path / "short", tensors, meta)
    with pytest.raises(ArtefactError, match="user_vectors of the tokenizer have shape"):
        again.load(tmp_path / "short")

    tensors, meta = load_artefact(tmp_path / "kept")
    tensors["user_codes"][1] = items.codes[1]
    save_artefact(tmp_path / "twins", tensors, meta)
    again.load(tmp_path / "twins")
    with pytest.raises(ArtefactError, match="have the same codes"):
        again.entities(items)


def test_one_entry_of_codebook_sizes():
    with pytest.raises(ConfigError, match="learns one level"):
        fitted(content_of(blocks()), codebook_sizes=[8, 8])


# --- the training split -----------------------------------------------------------------------


def write_held_out(folder, turned: bool):
    """Users with six items; the last two, which are held out, may be turned around."""
    target = folder / "toy"
    target.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(20):
        sequence = [f"i{(user * 3 + step) % 25}" for step in range(6)]
        if turned:
            sequence[4:] = reversed(sequence[4:])
        rows += [f"u{user}\t{item}\t{step}" for step, item in enumerate(sequence)]
    (target / "toy.inter").write_text("\n".join(rows) + "\n")
    return folder


def split_content(folder):
    config = toy_config(folder, "TIGER", item_text_fields=None, **SMALL)
    dataset = create_dataset(config)
    content = ItemContent.from_dataset(dataset, config, needed=False)
    content.interactions = TrainingInteractions(config, lambda _: None)
    content.users = [str(token) for token in dataset.field2id_token["user_id"]]
    return config, content


def test_no_held_out_edge_is_in_the_graph_and_held_out_items_change_nothing(tmp_path):
    results = []
    for turned in (False, True):
        config, content = split_content(write_held_out(tmp_path / str(turned), turned))
        graph = BipartiteGraph.of(content.user_sequences())
        edges = set()
        for node, user in enumerate(graph.users, start=len(graph.items)):
            mine = graph.neighbours[graph.first[node] : graph.first[node + 1]]
            edges |= {(user, graph.items[item]) for item in mine}
        held_out = {
            (f"u{user}", f"i{(user * 3 + step) % 25}") for user in range(20) for step in (4, 5)
        }
        assert len(edges) == 80 and not edges & held_out
        tokenizer = make_tokenizer(config, 5)
        codes = tokenizer.fit(content)
        by_name = dict(zip(codes.tokens, codes.codes.tolist(), strict=True))
        users = tokenizer.user_codes
        results.append((by_name, dict(zip(users.tokens, users.codes.tolist(), strict=True))))
    assert results[0] == results[1]


def test_users_of_new_items_are_ids_and_not_letters():
    sequences = {
        str(user): [f"i{(3 * user + step) % 30}" for step in range(5)] for user in range(30)
    }
    tokenizer, items = fitted(content_of(sequences), fine_headroom=3)
    vectors = [
        tokenizer._new_vectors(NewItems(["a"], users=users))
        for users in ([["12"]], [[12]], [[np.int64(12)]], [np.array(["12"])])
    ]
    assert all(torch.equal(vector, vectors[0]) for vector in vectors)
    letters = tokenizer._new_vectors(NewItems(["a"], users=[["1", "2"]]))
    assert not torch.equal(vectors[0], letters)
    for wrong in (["12"], "12", 12, {"12": ["a"]}):
        with pytest.raises(ConfigError, match="users must hold a list of user ids for each new"):
            NewItems(["a"], users=wrong)
    with pytest.raises(ConfigError, match="users of a new item must be a list of user ids"):
        NewItems(["a"], users=[12])
    with pytest.raises(ConfigError, match="is no id"):
        NewItems(["a"], users=[[1.5]])
