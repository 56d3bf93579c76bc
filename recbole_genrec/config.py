"""RecBole's configuration with our property files and keys, and errors that name the value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recbole_genrec.data.file_filter import load_filtering_files, without_idle_filter
from recbole_genrec.data.known_datasets import FOLDER_NAME
from recbole_genrec.data.rows.training_rows import use_batch_targets
from recbole_genrec.data.run_names import run_name
from recbole_genrec.errors import ConfigError, GenRecError, reason_of
from recbole_genrec.model.config_checks import check_settings
from recbole_genrec.model.outside import is_outside, location, register
from recbole_genrec.model.presets import (
    check_preset,
    data_alone,
    generator_notice,
    published_notices,
    tokenizer_values,
)
from recbole_genrec.model.registry import (
    GENERATORS,
    MODELS,
    build_model,
    get_model_class,
    is_generative,
    model_names,
    model_properties,
    needs_tokenizer,
)
from recbole_genrec.model.self_improve.checks import check_method
from recbole_genrec.model.starting_codes import code_defaults
from recbole_genrec.model.timeline.effective_keys import settle_keys
from recbole_genrec.runtime import processes
from recbole_genrec.runtime.recbole_repairs import (
    check_installation,
    quiet_anomaly_detection,
    restore_numpy_aliases,
)
from recbole_genrec.settings import recbole_values
from recbole_genrec.settings.classification import inherited_keys, merged, shared_keys
from recbole_genrec.settings.declaration import DECLARED, REQUIRED, Key, Settings, SettingsType
from recbole_genrec.settings.home_paths import at_home
from recbole_genrec.settings.older_names import follow_older_names
from recbole_genrec.settings.parsing import YamlLoader, parse_arguments, parse_value, read_yaml
from recbole_genrec.settings.plain import plain_value
from recbole_genrec.settings.property_files import own_settings, shipped
from recbole_genrec.settings.protocol_values import VALIDATION_LOSS, ranking_metric
from recbole_genrec.settings.rules import check_value, nearest
from recbole_genrec.settings.shapes import SHAPES, completed_shape
from recbole_genrec.settings.shared_keys import SharedSettings
from recbole_genrec.tokenizer import tokenizer_class
from recbole_genrec.tokenizer.registry import is_path

check_installation()

from recbole.config import Config  # noqa: E402

# What RecBole raises over a value that it cannot use.
RECBOLE_FAILURES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)


class GenRecConfig(Config):
    """RecBole's ``Config`` that knows our models, keys and property files.

    Order, later wins:

    1. RecBole's own files,
    2. ``tokenizer/<tokenizer>.yaml``, our ``overall.yaml``, ``dataset/<dataset>.yaml`` and the
       YAML file of the same name in the dataset's folder, ``model/<Model>.yaml``,
    3. the section of the dataset file that is named after the model or, with ``preset: paper``,
       ``paper/<Model>.yaml`` in its place,
    4. the user's files, dictionary and arguments.

    A key written ``Model.key`` applies to that model alone. So one command tunes several models.

    Args:
        model: name, or a RecBole model class.
        dataset: name of the dataset folder.
        config_file_list: YAML files.
        config_dict: keys and values.
        argv: ``--key=value`` arguments. Only what is passed here is read; RecBole alone would read
            ``sys.argv``.

    Attributes:
        is_stored: whether the settings are those that a checkpoint holds.
        notices: sentences about combinations of settings, for the log of a run.

    Raises:
        ConfigError: an unknown key, a bad value, or a combination that cannot work.
    """

    is_stored = False

    def __init__(
        self, model=None, dataset=None, config_file_list=None, config_dict=None, argv=None
    ):
        self._argv = list(argv or [])
        self._views: dict[type, Any] = {}
        self.declarations: dict[str, Key] = SharedSettings.declared()
        self.places: dict[str, str] = {}
        self.notices: list[str] = []
        self._tokenizer_of: str | None = None
        try:
            super().__init__(model, dataset, config_file_list, dict(config_dict or {}))
        except GenRecError:
            raise
        except RECBOLE_FAILURES as error:
            raise ConfigError(
                f"RecBole cannot use these settings{reason_of(error)}. Check the types of their "
                "values against `recbole-genrec keys`."
            ) from error
        tokenizer = str(self.final_config_dict.get("tokenizer"))
        if is_path(tokenizer) and os.sep not in tokenizer:
            # a path, also in a process whose working folder is another one
            self.final_config_dict["tokenizer"] = os.path.join(os.curdir, tokenizer)
        switch = self.final_config_dict.get("self_improve", False)
        check_value(shared_keys()["self_improve"], switch)
        if switch:
            check_method(self.model_class)
        if is_outside(self.model_class):
            self.final_config_dict["model_class"] = location(self.model_class)
        load_filtering_files(self)
        settle_keys(self.final_config_dict, self.external_config_dict)
        follow_older_names(self.final_config_dict, self.external_config_dict)
        use_batch_targets(self)
        # models write keys of their own later (BERT4Rec: MASK_INDEX)
        self._stored_names = tuple(self.final_config_dict)
        check_settings(self)

    # --- RecBole's hooks -------------------------------------------------------------------------

    def compatibility_settings(self):
        """Set the aliases that numpy 2 lacks and RecBole reads."""
        restore_numpy_aliases()

    def _build_yaml_loader(self):
        return YamlLoader

    def _convert_config_dict(self, config_dict):
        # RecBole evaluates every string as Python code; literals are all that is needed.
        return {
            key: parse_value(value) if isinstance(value, str) else value
            for key, value in config_dict.items()
        }

    def _load_config_files(self, file_list):
        contents = [read_yaml(file) for file in file_list or []]
        return {name: value for content in contents for name, value in content.items()}

    def _load_cmd_line(self):
        arguments = parse_arguments(self._argv)
        arguments.pop("config_files", None)  # config_files() has added them to config_file_list
        return arguments

    def _get_final_config_dict(self):
        return at_home(super()._get_final_config_dict())

    def _get_model_and_dataset(self, model, dataset):
        model = model if model is not None else self.external_config_dict.get("model")
        dataset = dataset if dataset is not None else self.external_config_dict.get("dataset")
        if model is None or dataset is None:
            raise ConfigError(
                "Name a model and a dataset, for example --model=STORE --dataset=ml-100k."
            )
        if not isinstance(dataset, str) or not FOLDER_NAME.fullmatch(dataset):
            raise ConfigError(
                f"dataset {dataset!r} must be the name of one folder (letters, digits, '-', '_', "
                "'.'). A name like a number needs quotes in quotes: --dataset=\"'2024'\"."
            )
        if isinstance(model, str):
            model_class = get_model_class(self._other_generator(model, dataset))
        else:
            model_class = model
            if is_outside(model_class):
                register(model_class)
        quiet_anomaly_detection()
        return model_class.__name__, model_class, dataset

    def _other_generator(self, model: str, dataset: str) -> str:
        """The model that runs: ``--model=LETTER --generator=timeline`` is TimelineRec.

        It takes LETTER's tokenizer with its settings, and the sections of LETTER's files that are
        named after it.
        """
        other = GENERATORS.get((model, str(self._user_value("generator", model))))
        if other is None:
            return model
        settings = {**self._external_for(model), **self._external_of(other)}
        settings.pop("generator", None)
        files = (shipped(f"model/{model}"), self._sizes(model, dataset))
        chosen = tokenizer_values(files, settings)
        for_other = {name: value for file in files for name, value in file.get(other, {}).items()}
        self.external_config_dict = {**chosen, **for_other, **settings}
        notice = generator_notice(model, other, chosen["tokenizer"], self._is_published(model))
        self.notices.append(notice)
        self._tokenizer_of = model
        return other

    def _load_internal_config_dict(self, model, model_class, dataset):
        super()._load_internal_config_dict(model, model_class, dataset)
        self.places = dict.fromkeys(self.internal_config_dict, "RecBole")
        # RecBole's default would stop every model with a cross-entropy loss
        del self.internal_config_dict["train_neg_sample_args"]
        check_preset(self._user_value("preset", model), model, is_generative(model_class))
        for file in ("self_improve", "overall"):
            self._merge(shipped(file), f"{file}.yaml")
        published = self._is_published(model)
        values = self._dataset_values(model, dataset)
        if published:
            chosen = self._user_value("tokenizer", model)
            self.notices += published_notices(model, dataset, values, chosen, self._tokenizer_of)
            values = data_alone(shipped(f"dataset/{dataset}"), values)
        self._merge(values, f"dataset/{dataset}.yaml")
        self._merge(model_properties(model_class), f"model/{model}.yaml")
        place = f"paper/{model}.yaml" if published else f"dataset/{dataset}.yaml, {model}"
        self._merge(self._sizes(model, dataset), place)
        self.external_config_dict = self._external_for(model)
        if "eval_args" in self.external_config_dict:
            # RecBole would take its own default for each part that is left out
            eval_args = self.external_config_dict["eval_args"]
            recbole_values.check_eval_args(eval_args)
            default = self.internal_config_dict["eval_args"]
            self.external_config_dict["eval_args"] = {**default, **eval_args}
        start = self._get_final_config_dict().get("init_from")
        codes = code_defaults(start, model_class, self.external_config_dict.get("tokenizer"))
        self._merge(codes, "init_from")
        self._declare(model_class)
        for name in self.external_config_dict.keys() & set(SHAPES):
            given, default = self.external_config_dict[name], self.internal_config_dict.get(name)
            self.external_config_dict[name] = completed_shape(name, given, default)
        completed = self._get_final_config_dict()
        recbole_values.check_metrics(completed)
        needed = completed.get("loss_type") == "BPR" or (
            hasattr(model_class, "input_type") and not is_generative(model_class)
        )
        negatives = dict(recbole_values.NEGATIVES) if needed else None
        self.internal_config_dict.setdefault("train_neg_sample_args", negatives)

    def _set_default_parameters(self):
        folder = Path(self.final_config_dict["data_path"]) / self.dataset
        super()._set_default_parameters()
        if (folder / f"{self.dataset}.inter").is_file():
            # RecBole takes its own copy of ml-100k, whatever data_path says
            self.final_config_dict["data_path"] = str(folder)
        if str(self.final_config_dict["valid_metric"]).lower() == VALIDATION_LOSS:
            self.final_config_dict["valid_metric_bigger"] = False

    def _init_device(self):
        if "local_rank" in self.final_config_dict:
            raise ConfigError(
                "local_rank is given by the launcher. For several processes use --nproc=2, "
                "or torchrun --nproc_per_node=2."
            )
        if self.final_config_dict.get("use_gpu") is False:
            self.final_config_dict["gpu_id"] = ""
        # RecBole sees a single process (single_spec). Its own way with several needs CUDA, repeats
        # users and averages metrics wrongly.
        super()._init_device()
        self.final_config_dict["device"] = processes.own_device(self.final_config_dict["device"])
        if processes.rank() > 0:
            self.final_config_dict.update(
                {"show_progress": False, "log_wandb": False, "log_mlflow": False, "state": "error"}
            )

    # --- ours ------------------------------------------------------------------------------------

    def is_chosen(self, name: str) -> bool:
        """Whether the user gave a key, also in the YAML file of the dataset's folder."""
        own = own_settings(self.dataset, self._data_path(self.model))
        in_own = name in own or name in (own.get(self.model) or {})
        in_force = self.places.get(name, "").startswith("dataset/")
        return name in self.external_config_dict or (in_own and in_force)

    def _sizes(self, model: str, dataset: str) -> dict:
        """The settings of ``model`` beyond its own file: published, or chosen for the dataset."""
        if self._is_published(model):
            return shipped(f"paper/{model}")
        return self._dataset_values(model, dataset).get(model) or {}

    def _is_published(self, model: str) -> bool:
        """Whether ``model`` takes its published setting."""
        return self._user_value("preset", model) == "paper" and bool(shipped(f"paper/{model}"))

    def _dataset_values(self, model: str, dataset: str) -> dict:
        """Our settings for a dataset, below those of the YAML file in its own folder."""
        own = own_settings(dataset, self._data_path(model))
        return {**shipped(f"dataset/{dataset}"), **own}

    def _data_path(self, model: str) -> object:
        return self._user_value("data_path", model) or "dataset"

    def _declare(self, model_class: Any) -> None:
        """Collect the declarations of the method and of its tokenizer, and the defaults of both."""
        classes: list[type[Settings]] = [SharedSettings]
        if is_generative(model_class):
            classes.append(model_class.settings_class)
        tokenizer = self._get_final_config_dict().get("tokenizer")
        if needs_tokenizer(model_class) and tokenizer is not None:
            check_value(merged(*classes)["tokenizer"], tokenizer)
            chosen = tokenizer_class(tokenizer)
            file = f"tokenizer/{chosen.name}"
            for name, value in {**chosen.defaults, **shipped(file)}.items():
                if name not in self.internal_config_dict:
                    self.internal_config_dict[name] = value
                    self.places[name] = f"{file}.yaml"
                given = self.internal_config_dict[name]
                self.internal_config_dict[name] = completed_shape(name, given, value)
            classes.append(chosen.settings_class)
        self.declarations = merged(*classes)
        for name, declared in self.declarations.items():
            if name not in shared_keys() and declared.default not in (REQUIRED, None):
                self.places.setdefault(name, DECLARED)
                self.internal_config_dict.setdefault(name, declared.default)

    def _merge(self, content: dict, place: str) -> None:
        """Take the flat keys of a property file; a section named after a model is that model's."""
        for name, value in content.items():
            if isinstance(value, dict) and (name in MODELS or name[:1].isupper()):
                continue
            default = self.internal_config_dict.get(name)
            self.internal_config_dict[name] = completed_shape(name, value, default)
            self.places[name] = place

    def _user_value(self, key: str, model: str) -> object:
        return self.external_config_dict.get(f"{model}.{key}", self.external_config_dict.get(key))

    def _external_for(self, model: str) -> dict:
        """The user's keys with ``Model.key`` resolved for this model."""
        for_all: dict = {}
        for name, value in self.external_config_dict.items():
            owner, dot, key = name.partition(".")
            if not dot:
                for_all[name] = value
            elif owner not in model_names():
                near = nearest(owner, model_names())
                hint = f" Did you mean {near[0]}.{key}?" if near else ""
                raise ConfigError(f"{name}: there is no model {owner!r}.{hint}")
        return {**for_all, **self._external_of(model)}

    def _external_of(self, model: str) -> dict:
        """The user's keys that name this model, ``Model.key``, without its name."""
        start = f"{model}."
        keys = self.external_config_dict.items()
        return {name.removeprefix(start): value for name, value in keys if name.startswith(start)}

    # --- the typed view --------------------------------------------------------------------------

    @property
    def settings(self) -> SharedSettings:
        """The values of the keys that all methods share, typed."""
        return self.view(SharedSettings)

    def view(self, settings: type[SettingsType]) -> SettingsType:
        """The values of the keys that ``settings`` declares; it follows later changes of a key."""
        if settings not in self._views:
            self._views[settings] = settings.from_values(self.final_config_dict)
        return self._views[settings]

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        for view in self._views.values():
            view.change(name, value)

    # --- stages and names ------------------------------------------------------------------------

    def derived(self, model: str, **values: object) -> GenRecConfig:
        """Settings for a stage that trains ``model``: this run's data, split, seed and device.

        Args:
            model: name of the model.
            **values: its other settings.
        """
        taken_over = inherited_keys()
        values_here = without_idle_filter(self.plain())
        inherited = {name: value for name, value in values_here.items() if name in taken_over}
        inherited["data_path"] = str(Path(inherited["data_path"]).parent)
        inherited["checkpoint_dir"] = self.settings.cache_dir  # for the resume file
        if self.settings.valid_metric.lower() == VALIDATION_LOSS:
            inherited["valid_metric"] = ranking_metric(self.settings)
        return GenRecConfig(model, self.settings.dataset, config_dict={**inherited, **values})

    def build_model(self, dataset: Any) -> Any:
        """The model of these settings, untrained, also for rooms that do not know the models.

        Args:
            dataset: RecBole's training dataset.
        """
        return build_model(self, dataset)

    def plain(self) -> dict:
        """The final configuration as JSON can hold it, for checkpoints and result files."""
        return {name: plain_value(self.final_config_dict[name]) for name in self._stored_names}

    def run_name(self) -> str:
        """The name of the run, see :func:`recbole_genrec.data.run_names.run_name`."""
        return run_name(self)
