"""How a key is declared: once, as a typed field of a class of settings.

From the declaration come the check of a value, the name of a run, the cache key of a tokenizer,
what ``evaluate`` may change, what a benchmark sets itself, the typed view that code reads and the
list that ``recbole-genrec keys`` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Effect = Literal["data", "tokenizer", "training", "search", "display"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
REQUIRED: Any = object()
"""Default of a key whose value stands in a YAML file."""
GIVEN: Any = object()
"""Stands for any value of a switch that is on once it is set: ``("candidate_file", GIVEN)``."""
DECLARED = "declared"
"""Place of a value that is the default of the key's declaration."""
SettingsType = TypeVar("SettingsType", bound="Settings")


def key(
    help: str,
    *,
    affects: Effect | tuple[Effect, ...] = "training",
    ge: float | None = None,
    le: float | None = None,
    default: Any = REQUIRED,
    only_if: tuple[str, object] | None = None,
    neutral: Any = REQUIRED,
    evaluate: bool = False,
    set_by_benchmark: bool = False,
    computed: bool = False,
    inherited: bool | None = None,
) -> Any:
    """Declare a key as the default of a typed field.

    For example ``beam_max: int = key("widest beam", ge=1, affects="search")``.

    Args:
        help: one line for people.
        affects: what a change of the value changes. ``display`` alone never enters the name of a
            run.
        ge: smallest number; in a list, of each entry.
        le: largest number; in a list, of each entry.
        default: the value where no YAML file sets the key. Without it a YAML file must.
        only_if: another key and the value of it (or :data:`GIVEN`) without which this key has no
            effect; it then stays out of names and cache keys.
        neutral: a value that acts as if the key did not exist. With it the key stays out of the
            names of runs, so that runs from before the key existed keep theirs.
        evaluate: whether ``evaluate`` may change a key that affects ``display`` only. It may always
            change what affects ``search``.
        set_by_benchmark: whether a benchmark sets the key itself.
        computed: whether RecBole computes the value from other keys; it is never read from a stored
            run.
        inherited: whether a model that a stage of the run trains takes the value over. Default:
            RecBole's keys of data, evaluation and machine are taken over, others are not.
    """
    effects = (affects,) if isinstance(affects, str) else affects
    extra = {
        "affects": effects,
        "low": ge,
        "high": le,
        "only_if": only_if,
        "neutral": neutral,
        "evaluate": evaluate or "search" in effects,
        "set_by_benchmark": set_by_benchmark,
        "computed": computed,
        "inherited": inherited,
    }
    options: dict[str, Any] = {} if default is REQUIRED else {"default": default}
    return Field(description=help, json_schema_extra=extra, **options)


@dataclass(frozen=True)
class Key:
    """The declaration of one key, see :func:`key` for the attributes of the same names.

    Attributes:
        annotation: the Python type of the value.
        place: the file of the declaration, from the folder that holds the package.
    """

    name: str
    annotation: Any
    help: str
    affects: tuple[Effect, ...]
    low: float | None = None
    high: float | None = None
    default: Any = REQUIRED
    only_if: tuple[str, object] | None = None
    neutral: Any = REQUIRED
    evaluate: bool = False
    set_by_benchmark: bool = False
    computed: bool = False
    inherited: bool | None = None
    place: str = ""

    @cached_property
    def members(self) -> tuple[Any, ...]:
        """The types that a value may have: those of a union, or the only one."""
        union = get_origin(self.annotation) in (Union, UnionType)
        return get_args(self.annotation) if union else (self.annotation,)

    @property
    def optional(self) -> bool:
        """Whether ``null`` is a value."""
        return NoneType in self.members or self.annotation is Any

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """The words (and numbers) that are listed as values."""
        literals = [member for member in self.members if get_origin(member) is Literal]
        return tuple(choice for literal in literals for choice in get_args(literal))

    @cached_property
    def kind(self) -> type:
        """``int``, ``float``, ``bool``, ``str``, ``list``, ``dict``, or the type of the choices."""
        for member in self.members:
            if get_origin(member) is not Literal and member is not NoneType:
                return get_origin(member) or member
        return type(self.choices[0])

    @cached_property
    def item(self) -> type:
        """Type of the entries of a list."""
        for member in self.members:
            if get_origin(member) is list:
                return get_args(member)[0]
        return str

    @property
    def only_words(self) -> bool:
        """Whether nothing but the listed :attr:`choices` is a value."""
        return all(get_origin(member) is Literal or member is NoneType for member in self.members)

    @cached_property
    def _adapter(self) -> TypeAdapter:
        bounded = tuple(self._bounded(member) for member in self.members)
        union: Any = Union[bounded]  # noqa: UP007
        return TypeAdapter(union, config=ConfigDict(strict=True))

    def _bounded(self, member: Any) -> Any:
        """A type with the range of the key; a list has at least one entry."""
        if get_origin(member) is list:
            entry = self._bounded(get_args(member)[0])
            return Annotated[list[entry], Field(min_length=1)]  # type: ignore[valid-type]
        if member in (int, float):
            return Annotated[member, Field(ge=self.low, le=self.high)]
        return member

    def fits(self, value: object) -> bool:
        """Whether ``value`` has the type of the key and lies in its range."""
        value = list(value) if isinstance(value, tuple) else value
        try:
            self._adapter.validate_python(value)
        except ValidationError:
            return False
        return True

    def fits_type(self, value: object) -> bool:
        """Whether ``value`` has the type of the key, whatever its range."""
        unbounded = Key(self.name, self.annotation, self.help, self.affects)
        return unbounded.fits(value)

    @property
    def display_only(self) -> bool:
        """Whether the key says where or how a run is shown, not what it computes."""
        return self.affects == ("display",)

    @property
    def range_text(self) -> str:
        """What the value may be, for people: ``int, at least 1, or auto``."""
        words = ", ".join(map(str, self.choices))
        if self.only_words:
            return words
        if self.annotation is Any:
            return "any value"
        text = self.kind.__name__ if isinstance(self.kind, type) else str(self.kind)
        if self.kind is list:
            text = f"list of {self.item.__name__}"
        if self.low is not None and self.high is not None:
            text += f", {self.low:g} to {self.high:g}"
        elif self.low is not None:
            text += f", at least {self.low:g}"
        if words:
            text += f", or {words}"
        return text


class Settings(BaseModel):
    """A group of declared keys, and the typed view of their values.

    A method or tokenizer declares its keys in a subclass, which its ``settings_class`` names.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    @classmethod
    @cache
    def declared(cls) -> dict[str, Key]:
        """The declarations by name."""
        keys = {}
        for name, info in cls.model_fields.items():
            keys[name] = _declaration(name, info, _declaring_class(cls, name))
        return keys

    @classmethod
    def of(cls: type[SettingsType], config: Any) -> SettingsType:
        """The view of a mapping, or of a ``GenRecConfig``, whose later changes it follows."""
        view: Callable | None = getattr(config, "view", None)
        return view(cls) if view is not None else cls.from_values(config)

    @classmethod
    def from_values(cls: type[SettingsType], values: Mapping[str, object]) -> SettingsType:
        """The view of checked ``values``; a key without value and default is ``None``."""
        content: dict[str, Any] = {}
        for name, declared in cls.declared().items():
            default = None if declared.default is REQUIRED else declared.default
            content[name] = values.get(name, default)
        return cls.model_construct(**content)

    def change(self, name: str, value: object) -> None:
        """Follow a change in the configuration behind the view."""
        if name in type(self).declared():
            self.__dict__[name] = value


def _declaring_class(settings: type[Settings], name: str) -> type:
    """The class in whose body the key stands, which its subclasses inherit."""
    for base in settings.__mro__:
        if name in base.__dict__.get("__annotations__", {}):
            return base
    return settings


def _declaration(name: str, info: Any, settings: type) -> Key:
    default = REQUIRED if info.is_required() else info.default
    return Key(
        name,
        info.annotation,
        info.description,
        default=default,
        place=settings.__module__.replace(".", "/") + ".py",
        **info.json_schema_extra,
    )


def active(
    keys: Mapping[str, Key], values: Mapping[str, object], names: Iterable[str]
) -> list[str]:
    """Those of ``names`` whose switch is on; names without a declaration have none."""
    return [name for name in names if _is_on(keys, values, name)]


def _is_on(keys: Mapping[str, Key], values: Mapping[str, object], name: str) -> bool:
    declared = keys.get(name)
    if declared is None or declared.only_if is None:
        return True
    switch, setting = declared.only_if
    value = values.get(switch)
    on = value is not None if setting is GIVEN else value == setting
    return on and _is_on(keys, values, switch)
