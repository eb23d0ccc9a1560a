"""The commands that a message tells a person to run next, in the form in which this program was started."""

import shlex
import sys
from pathlib import Path

_SCRIPTS = ("train.py", "validate.py", "infer.py")


def command(name: str, *arguments: str | Path) -> str:
    """`python validate.py --model_path 'my run'`: a command that works in this working folder, quoted for a shell.

    Beside a script it is the script; of the installed command `csl` it is that; anywhere else `python -m csl`.

    Args:
        name: train, validate, infer or inspect.
        arguments: its flags and their values; paths as `quoted` takes them.
    """
    started = Path(sys.argv[0])
    script = (started.parent if started.name in _SCRIPTS else Path()) / f"{name}.py"
    if started.stem == "csl":
        words = ["csl", name]
    else:
        words = ["python", str(script)] if script.is_file() else ["python", "-m", "csl", name]
    return quoted(*words, *arguments)


def quoted(*words: str | Path) -> str:
    """Words of a command, quoted for a shell; a `Path` that begins with a dash as `./-name`, which is no flag."""
    return shlex.join(
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words
    )
