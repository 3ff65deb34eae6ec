"""Finding a plugin's code, and the hooks that it implements."""

import importlib.util
import site
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pluggy

from crdt_service.plugins.hook import GROUP, Hooks


def bind(implementation: object) -> pluggy.HookRelay:
    """Return what calls the hooks of a plugin.

    Raises:
        PluginValidationError: It marks what is no hook, or with parameters that the hook does not have.
    """
    manager = pluggy.PluginManager("jarvis")
    manager.add_hookspecs(Hooks)
    manager.register(implementation)
    manager.check_pending()
    return manager.hook


def load(name: str, directory: str) -> object:
    """Return the plugin `name`: ``<directory>/<name>.py``, or the entry point in ``<directory>/<name>/`` or installed.

    Raises:
        LookupError: There is none.
        Exception: Whatever its code raises.
    """
    root = Path(directory)
    if directory and (file := root / f"{name}.py").is_file():
        return _load_file(name, file)
    if directory and (root / name).is_dir():
        site.addsitedir(str(root / name))
    points = metadata.entry_points(group=GROUP, name=name)
    if not points:
        raise LookupError(f"no entry point {name!r} in the group {GROUP}, and no file {name}.py")
    plugin = next(iter(points)).load()
    return plugin() if isinstance(plugin, type) else plugin


def _load_file(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jarvis_plugin_{name.replace('-', '_')}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
