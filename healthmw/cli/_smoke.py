"""`healthmw smoke`: boot a server, ask it whether it is well, stop it and all that it started."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING

from healthmw.cli import _options, _procfile, _smoke_options
from healthmw.cli._descendants import adopting_orphans
from healthmw.cli._exit import COULD_NOT_TELL, NOT_WELL, WELL, CouldNotTell
from healthmw.cli._http import Endpoint
from healthmw.cli._output import Progress, emit
from healthmw.cli._place import ensure_vacant, free_port, reachable
from healthmw.cli._process import Server
from healthmw.cli._report import as_json, as_text
from healthmw.cli._signals import Signals
from healthmw.cli._target import REDIRECT, SUCCESS, HTTPTarget, Question, tls_context
from healthmw.cli._text import limit, of_command
from healthmw.cli._trial import Pace, Step, Trial, Verdict
from healthmw.cli._verdict import unknown_as_json

if TYPE_CHECKING:
    import argparse

    from healthmw.cli._process import Ending

_MARK = "HEALTHMW_SMOKE"
_EXIT = {Verdict.PASSED: WELL, Verdict.FAILED: NOT_WELL, Verdict.UNKNOWN: COULD_NOT_TELL}


def run(words: list[str]) -> int:
    """Run the command with the arguments `words`, and return the exit status."""
    options, command = _options.split(words)
    parser = _smoke_options.make_parser()
    args = parser.parse_args(options)
    _smoke_options.check(parser, args, command)
    with unknown_as_json(sys.stdout, wanted=args.json):
        return _smoke(args, command or [])


def _smoke(args: argparse.Namespace, command: list[str]) -> int:
    if os.environ.get(_MARK):
        raise CouldNotTell(
            f"this is a smoke test within a smoke test ({_MARK} is set): does the command it starts"
            " run `healthmw smoke` again?"
        )
    endpoint = _endpoint(args)
    target = HTTPTarget(endpoint, args.path, _options.question(args))
    shown, words = _command(args, command, port=endpoint.port)
    env = _environment(args, port=endpoint.port)
    ensure_vacant(endpoint)
    progress = Progress()
    progress.line(f"Starting  {of_command(shown)}")
    progress.line(f"  asking  {target.name} for at most {limit(args.timeout)}")
    with Signals() as signals, adopting_orphans():
        server = Server(words, env=env)
        try:
            trial = Trial(
                server,
                pace=Pace(
                    timeout=args.timeout,
                    request_timeout=args.request_timeout,
                    interval=args.interval,
                ),
                signals=signals,
                progress=progress,
                shell=args.procfile is not None,
            )
            outcome = trial.run(
                [*_warm_up(args, endpoint), Step(target=target, passes=args.passes)]
            )
        finally:
            status = server.status
            server.log.mark()
            ending = _stop(server, grace=args.grace, signals=signals, progress=progress)
    log = server.log.excerpt(args.log_lines, path=target.path)
    # A signal that comes while the server is stopped is one to us, too: `smoke ... && deploy`.
    code = _EXIT[outcome.verdict] if signals.first is None else 128 + signals.first
    if args.json:
        report = as_json(
            outcome,
            ending=ending,
            status=status,
            code=code,
            url=target.name,
            log=log,
        )
        emit(json.dumps(report), sys.stdout)
    else:
        emit(as_text(outcome, ending=ending, status=status, log=log), sys.stdout)
    return code


def _stop(server: Server, *, grace: float, signals: Signals, progress: Progress) -> Ending:
    before = signals.count

    def hurry() -> bool:
        progress.tick()
        return signals.count > before

    progress.show("stopping the server")
    ending = server.stop(grace=grace, hurry=hurry)
    progress.clear()
    return ending


def _endpoint(args: argparse.Namespace) -> Endpoint:
    tls = None
    if args.scheme == "https":
        tls = tls_context(cacert=args.cacert, insecure=args.insecure)
    port = args.port or free_port(args.host)
    if args.unix_socket is not None:
        return Endpoint(port=port, unix_socket=args.unix_socket, tls=tls)
    return Endpoint(host=reachable(args.host), port=port, tls=tls)


def _command(args: argparse.Namespace, command: list[str], *, port: int) -> tuple[str, list[str]]:
    """Return the command as it is shown, and the words of it."""
    if args.procfile is not None:
        line = _procfile.command(args.procfile, args.process or _smoke_options.PROCESS)
        return line, ["sh", "-c", line]
    words = [w.replace("{port}", str(port)).replace("{host}", args.host) for w in command]
    return shlex.join(words), words


def _environment(args: argparse.Namespace, *, port: int) -> dict[str, str]:
    own = {"PORT": str(port), "HOST": args.host, _MARK: "1"}
    return {**os.environ, **own, **dict(args.env)}


def _warm_up(args: argparse.Namespace, endpoint: Endpoint) -> list[Step]:
    """Return a step for each path to request first: any answer that is no error will do."""
    question = Question(
        expect=None, headers=args.header, statuses=range(SUCCESS.start, REDIRECT.stop)
    )
    return [
        Step(target=HTTPTarget(endpoint, path, question), label=f"warm-up {path}: ")
        for path in args.warm_up
    ]
