"""Register our classes with transformers' Auto classes, as soon as both have been imported."""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SHIPPED = tuple(
    f"{__package__}.{module}"
    for module in (
        "configuration_roberta_gru",
        "configuration_recurrent",
        "modeling_roberta_gru",
        "modeling_recurrent",
    )
)


def register_when_imported() -> None:
    """Register our classes at once if transformers has been imported, else as soon as it is."""
    registration = _Registration()
    sys.meta_path.insert(0, registration)
    if "transformers" in sys.modules:
        import_module("transformers")  # which another thread may be at
        registration.tell("transformers")


def register() -> None:
    """Register our classes with the Auto classes."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

    from .configuration_recurrent import RecurrentConfig
    from .configuration_roberta_gru import RobertaGRUConfig
    from .modeling_recurrent import RecurrentForSequenceClassification, RecurrentModel
    from .modeling_roberta_gru import (
        RobertaGRUForSequenceClassification,
        RobertaGRUForTokenClassification,
        RobertaGRUModel,
    )

    for config_class in (RobertaGRUConfig, RecurrentConfig):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        # `register_for_auto_class` is what makes `save_pretrained` copy the two .py files beside the weights.
        config_class.register_for_auto_class()
    for auto_class, model_class in (
        (AutoModel, RobertaGRUModel),
        (AutoModelForSequenceClassification, RobertaGRUForSequenceClassification),
        (AutoModelForTokenClassification, RobertaGRUForTokenClassification),
        (AutoModel, RecurrentModel),
        (AutoModelForSequenceClassification, RecurrentForSequenceClassification),
    ):
        auto_class.register(model_class.config_class, model_class, exist_ok=True)
        model_class.register_for_auto_class(auto_class.__name__)


class _Registration(MetaPathFinder):
    """Register our classes once transformers and the shipped modules have been imported, in any order and thread.

    What is still being imported cannot be registered, and waiting for it could deadlock: it says when it is there.
    """

    def __init__(self) -> None:
        self.begun: set[str] = set()  # before they stand in `sys.modules`, where another thread would look too early
        self.imported: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find what is waited for as the other finders do, and have it tell when it has been imported."""
        if name not in ("transformers", *_SHIPPED):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            create, execute = spec.loader.create_module, spec.loader.exec_module

            def create_and_note(spec: ModuleSpec) -> ModuleType | None:
                self.begun.add(name)  # not above: who only asks whether there is such a module imports nothing
                return create(spec)

            def execute_and_tell(module: ModuleType) -> None:
                execute(module)
                self.tell(name)

            spec.loader.create_module = create_and_note  # type: ignore[method-assign]
            spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec

    def tell(self, name: str) -> None:
        """Note that a module has been imported; register, unless another of them is on its way."""
        self.imported.add(name)
        if "transformers" not in self.imported or self.begun - self.imported:
            return
        try:
            sys.meta_path.remove(self)
        except ValueError:  # another thread was faster
            return
        register()
