"""Constants at the top of a script, and overriding them from the command line."""

import ast
import difflib
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from utils.errors import UserError
from utils.terminal import forgive_output, stop_on_signals

# Every script imports this file before any of these.
if missing := [name for name in ("torch", "torchvision", "transformers", "matplotlib", "scipy") if not find_spec(name)]:
    sys.exit(f"error: {', '.join(missing)} cannot be imported: pip install -r requirements.txt")


REPOSITORY = Path(__file__).resolve().parent.parent
PETS_ROOT = os.path.expanduser(os.environ.get("PETS_ROOT", ""))
DATA = PETS_ROOT or "data/pets"  # the scripts' default for DATA_ROOT


def run_script(main: Callable[..., int | None], positional: str = "") -> None:
    """Override the constants of main's module from sys.argv, call main, and exit with its status.

    positional: what --help calls the arguments that are no constants; main gets them as a list. A UserError ends the
    script with its message alone and exit status 1; Ctrl-C, SIGTERM and SIGHUP end it with "stopped" and 128 + the
    signal's number.
    """
    module = sys.modules[main.__module__]
    forgive_output()
    stop_on_signals()
    try:
        arguments = override(vars(module), inspect.getsource(module), sys.argv[1:], positional)
        sys.exit(main(arguments) if positional else main())
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:  # not about a file
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        sys.exit(128 + (stop.args[0] if stop.args else signal.SIGINT))


def script_constants(main: Callable) -> dict:
    """The constants in force in the script that defines main; with a recipe, RECIPE is its name."""
    module = sys.modules[main.__module__]
    recipe = {"RECIPE": module.RECIPE} if getattr(module, "RECIPE", "") else {}
    return {name: vars(module)[name] for name in _remarks(inspect.getsource(module))} | recipe


def override(namespace: dict, source: str, arguments: Sequence[str], positional: str = "") -> list[str]:
    """Write recipes and `--KEY=value` arguments into namespace; returns the other arguments. Raises UserError.

    A value must parse to the type of the default. A tuple is written with commas; an option whose default is a list
    may be given several times. A leading ~ is the home folder. --help prints help_text() and exits.
    """
    known = {name: namespace[name] for name in _remarks(source)}
    recipes = [argument for argument in arguments if argument.endswith(".py") and not argument.startswith("--")]
    for recipe in recipes:
        namespace.update(read_recipe(recipe, known))
    namespace["RECIPE"] = ",".join(Path(recipe).stem for recipe in recipes)
    rest = []
    for argument in (argument for argument in arguments if argument not in recipes):
        if argument in ("--help", "-h"):
            print(help_text(namespace, source, positional))
            sys.exit(0)
        if not argument.startswith("--"):
            rest.append(argument)
            continue
        key, equals, text = argument[2:].partition("=")
        if key not in known:
            near = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.5)
            hint = f"did you mean --{near[0]}=...?" if near else "--help lists all constants."
            raise UserError(f"unknown constant --{key}: {hint}")
        if not equals:
            raise UserError(f"--{key} needs a value: --{key}={_show(known[key])}")
        value = parse(key, text, known[key])
        repeated = isinstance(value, list) and namespace[key] is not known[key]
        namespace[key] = namespace[key] + value if repeated else value
    for key in known:
        namespace[key] = expand(namespace[key])
    if rest and not positional:
        raise UserError(f"unexpected argument {rest[0]!r}; constants are set as --KEY=value, see --help")
    return expand(rest)


def read_recipe(path: str | Path, known: dict) -> dict:
    """The constants in a recipe, a Python file of literal assignments, which is parsed and not run. Raises UserError.

    known: the script's constants; the recipe may set any of them to a value of the same type.
    """
    try:
        values = {
            target.id: ast.literal_eval(node.value)
            for node in ast.parse(Path(path).read_text(encoding="utf-8")).body
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))  # the docstring
            for target in node.targets
        }
    except (AttributeError, SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: a recipe is lines of NAME = value, and nothing else ({error})") from error
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{path}: {key} is no constant of this script")
        default = known[key]
        both = isinstance(value, tuple) and isinstance(default, tuple)
        pairs = [(part, default[0]) for part in value if default] if both else [(value, default)]
        if any(type(x) not in ((int, float) if isinstance(y, float) else (type(y),)) for x, y in pairs):
            raise UserError(f"{path}: {key} = {value!r}, expected {type(default).__name__}, like {default!r}")
    return values


def help_text(namespace: dict, source: str, positional: str = "") -> str:
    """The script's docstring and a line per constant: name, value and the comment behind it."""
    lines = [(namespace["__doc__"] or "").strip(), "", "Constants (override with --KEY=value):"]
    for name, remark in _remarks(source).items():
        setting = f"  --{name}={_show(namespace[name])}"
        lines.append(f"{setting:<44} {remark}".rstrip())
    if positional:
        lines.insert(2, f"Arguments: {positional}\n")
    return "\n".join(lines)


def require_positive(values: dict, *names: str) -> None:
    """Raise UserError unless every named constant is greater than zero."""
    for name in names:
        if not values[name] > 0:
            raise UserError(f"{name} = {values[name]}: must be greater than 0")


def require_between(values: dict, low: float, high: float, *names: str) -> None:
    """Raise UserError unless every named constant is in low .. high, both included."""
    for name in names:
        if not low <= values[name] <= high:
            raise UserError(f"{name} = {values[name]}: must be in {low} .. {high}")


def require_range(name: str, values: tuple[float, ...]) -> None:
    """Raise UserError unless the constant is two positive numbers, the smaller one first."""
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise UserError(f"{name} = {','.join(map(str, values))}: must be two positive numbers, the smaller one first")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless the constant's value is one of choices."""
    if value not in choices:
        raise UserError(f"{name} = {value!r}: must be one of {', '.join(map(repr, choices))}")


def _remarks(source: str) -> dict[str, str]:
    """The constants of a script, lines NAME = value, each with the comment behind it; not _NAMES."""
    return dict(re.findall(r"^([A-Z][A-Z0-9_]*) = .*?(?:  # (.*))?$", source, re.MULTILINE))


def expand(value: object) -> object:
    """Replace a leading ~ by the home folder, in a text and in every text of a tuple or list."""
    if isinstance(value, str):
        return os.path.expanduser(value)
    return type(value)(map(expand, value)) if isinstance(value, (tuple, list)) else value


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def parse(key: str, text: str, default: object) -> object:
    """`text` as a value of the default's type; raises UserError."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
        return [text] if isinstance(default, list) else type(default)(text)
    except (KeyError, ValueError):
        kind = "True or False" if isinstance(default, bool) else type(default).__name__
        raise UserError(f"--{key}={text}: expected {kind}, like --{key}={_show(default)}") from None
