"""A method outside the package: the next item is near the recent ones in a learned space."""

import torch

from recbole_genrec import VectorRecommender, balanced, key


class MeanTextSettings(VectorRecommender.settings_class):
    width: int = key("vector size", ge=1, default=16)


class MeanText(VectorRecommender):
    tables = {"texts": "items"}
    settings_class = MeanTextSettings
    properties = {"item_text_fields": ["title"], "learning_rate": 0.01}

    def __init__(self, config, dataset, stored=None):
        super().__init__(config, dataset, stored)
        self.register_buffer("texts", torch.from_numpy(self.content.embeddings()))
        self.encoder = torch.nn.Linear(self.texts.shape[1], config["width"])
        self.register_buffer("decay", torch.tensor(0.8))

    @classmethod
    def reads_vectors(cls, config):
        return True

    def item_vectors(self):
        return torch.nn.functional.normalize(self.encoder(self.texts), dim=1) * 8

    def project(self, history, length, user=None):
        age = length.unsqueeze(1) - 1 - torch.arange(history.shape[1], device=history.device)
        weights = self.decay ** age.clamp(min=0) * (history > 0)
        return (weights.unsqueeze(2) * self.item_vectors()[history]).sum(1)

    def loss(self, history, length, target):
        scores = self.similarity(self.project(history, length), self.item_vectors())
        return balanced(torch.nn.functional.cross_entropy(scores[:, 1:], target - 1), len(target))

    def after_fit(self, validate):
        best = {}
        for decay in (0.2, 0.5, 0.8):
            self.decay.fill_(decay)
            best[decay] = validate()[self.config["valid_metric"].lower()]
        self.decay.fill_(max(best, key=best.get))
