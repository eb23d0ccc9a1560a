"""`csl review`: serve the page until it is stopped, or write labels with the answers into new files."""

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from csl.errors import InputError, MachineError
from csl.labels.options import DataOptions
from csl.labels.reviews import NONE, REVIEWS, data_folder
from csl.machine.invocation import command
from csl.ranges import check_ranges
from csl.review.answers import Answers
from csl.review.merge import merge
from csl.review.options import ReviewOptions
from csl.review.questions import Photos, Questions, question_file
from csl.runs.folder import RunFolder, latest_network

TOKEN = ".review_token"
"""The file in the folder of a run that keeps the token, so that an open page goes on when the server is started again."""


def review(options: ReviewOptions, say: Callable[[str], None] = print) -> None:
    """Serve the page of a run's questions until it is stopped (Ctrl-C).

    Raises:
        InputError: no such run, data or questions; a port in use; a package that is missing.
    """
    check_ranges(vars(options))
    run, data = _run_and_data(options)
    file = _file(data)
    if options.merge is not None:
        if not file.is_file():
            raise InputError(f"--merge: there are no answers, expected {file}")
        merge(data, Photos.read(data), file, run / "merged" if options.merge is True else Path(options.merge), say)
        return
    questions = Questions.read(question_file(options.questions, run), Photos.read(data), say)
    answers = Answers(file)
    try:
        import uvicorn

        from csl.review.app import create_app
    except ModuleNotFoundError as error:
        raise InputError(f"csl review: the package {error.name} is not installed: pip install 'csl[review]'") from None
    from csl.review.session import Session

    session = Session(questions, answers)
    listener = _listener(options.host, options.port)
    host, port = listener.getsockname()[:2]
    counts = session.counts()
    say(f"{counts['total']:,} questions of {questions.file}, {counts['left']:,} of them open; answers go into {file}")
    if not _is_loopback(host):
        say(f"warning: on {host}: everybody who has the address can answer, and it is not encrypted")
    token = _token(run)
    say(f"http://{f'[{host}]' if ':' in host else host}:{port}/{token}/   (Ctrl-C ends)")
    app = create_app(session, token, str(run), (options.host, socket.gethostname()))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2))
    with suppress(KeyboardInterrupt):  # how it is meant to end
        server.run(sockets=[listener])
    counts = session.counts()
    say(f"{counts['total'] - counts['left']:,} questions answered, {counts['left']:,} left; the answers are in {file}")
    say(f"to train with them: {command('train', '--data', str(data.data), '--path_dest', f'{run}_reviewed')}")


def _run_and_data(options):
    """The folder of the run, and which data it is of."""
    path = latest_network().parent if options.run is None else Path(options.run)
    path = path.parent if path.is_file() else path
    if not path.is_dir():
        raise InputError(f"{path}: no such folder, expected a run of train.py")
    data = DataOptions.of(options).over(RunFolder(path).read_config())
    if data.data is None:
        raise InputError(f"{path}: no run of train.py (it holds no config.json with data), expected one, or --data")
    return path, data


def _file(data):
    if data.reviews == NONE:
        raise InputError("--reviews none: answers need a file, expected one, or no --reviews")
    return Path(data.reviews) if data.reviews is not None else data_folder(data.data) / REVIEWS


def _listener(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        in_use = "in use, perhaps by another `csl review`: --port N takes another, --port 0 any"
        why = in_use if error.errno == 98 else f"not to be had ({error.strerror})"
        raise InputError(f"--host {host} --port {port}: {why}") from None


def _is_loopback(host):
    return host in ("::1", "localhost") or host.startswith("127.")


def _token(run):
    """The token of the run, made at its first review, for its owner alone to read."""
    file = run / TOKEN
    try:
        with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    except OSError as error:
        raise MachineError(f"{file}: cannot be written ({error.strerror})") from None
    token = file.read_text().strip()
    if len(token) < 16 or not token.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"{file}: holds no token, remove it")
    return token
