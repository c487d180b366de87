"""The command `metarun`: a subcommand or a Hydra run; errors become exit codes. Imports no torch before it must."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from metarun.core import tuning
from metarun.core.streams import find_cut, lasting_streams


def main() -> None:
    """Console script: run and exit with the code of design section 8."""
    code = command(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done: a second Ctrl-C ends torch's second of tidying up
    sys.exit(code)


def command(arguments: Sequence[str]) -> int:
    """Run the command line; returns 0 finished, 1 failed, 2 wrong input, 129, 130 or 143 interrupted."""
    with lasting_streams():
        code = _command(arguments)
        if cut := find_cut():
            _complain(OSError(f"what was printed is not whole: {cut}"))
        return code or int(bool(cut) and not _is_run(arguments))


def _command(arguments: Sequence[str]) -> int:
    from metarun.core.errors import ConfigError, Refused
    from metarun.core.launched import read_launched
    from metarun.core.memory import describe_lack_of_memory
    from metarun.core.whole import CannotWrite, find_here

    tuning.wait_briefly()
    try:
        sys.path.append(find_here())  # so that a YAML of one's own can name a class in a file that lies here
        if _is_run(arguments) and read_launched()[0] > 0:  # the first process of the run tells what it is
            with tuning.frozen_imports():
                from metarun.app.jobs.workers import work

            return work()
        if arguments and _is_word(arguments[0]):
            from metarun.app.commands.subcommands import run_subcommand

            return run_subcommand(arguments[0], arguments[1:], _command)
        if "--version" in arguments:
            print(f"metarun {metadata.version('metarun')}")
        elif {"--help", "-h"} & set(arguments):
            from metarun.app.commands.help import show_help
            from metarun.settings.conf import CONF

            show_help(CONF, arguments)
        else:
            return _hydra(arguments)
    except (ConfigError, Refused) as error:
        if _is_interrupted(error):
            return 130
        _complain(error)
        return 2
    except CannotWrite as error:
        _complain(error)
        return 1
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130)
    except SystemExit as end:
        _complain(RuntimeError(f"exit({end.code!r}) was called by code that is not metarun's"))
        return 1
    except Exception as error:
        if _is_interrupted(error):
            return 130
        if lack := describe_lack_of_memory(error, arguments):
            _complain(MemoryError(lack))
            return 1
        raise
    return 0


def _is_run(arguments: Sequence[str]) -> bool:
    """Return whether the command line starts a run, which several processes can share."""
    if {"--help", "-h", "--version", "--hydra-help"} & set(arguments):
        return False
    return not arguments or not _is_word(arguments[0]) or arguments[0] in ("resume", "rerun")


def _is_interrupted(error: BaseException | None) -> bool:
    """Return whether the error came of a Ctrl-C within a library, whose own tidying up then failed."""
    while error is not None:
        if type(error) is KeyboardInterrupt:
            return True
        error = error.__cause__ or error.__context__
    return False


def _complain(error: BaseException) -> None:
    from metarun.core.screen import Screen

    Screen(stderr=True).complain(str(error))


def _announce(config: Any, words: Sequence[str]) -> None:
    """Say what is about to run, before the seconds that torch's import takes."""
    from hydra.core.hydra_config import HydraConfig

    from metarun.core.screen import Screen
    from metarun.core.whole import shorten_path
    from metarun.settings.announce import describe_start

    runtime = HydraConfig.get().runtime
    for line in describe_start(config, runtime.choices, words, shorten_path(Path(runtime.output_dir))):
        Screen(width=120).say(line)


def _is_word(argument: str) -> bool:
    return "=" not in argument and argument[:1] not in "-+~"


def _read(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str], bool]:
    """Return flags, overrides as Hydra reads them, folders of YAML files of one's own, and whether this is a sweep.

    Raises: ConfigError for what Hydra has no flag for, as `--optim.lr=0.1` from W&B's `${args}`.
    """
    from hydra._internal.utils import get_args_parser

    from metarun.app.typed_runs import name_folders
    from metarun.core.errors import ConfigError
    from metarun.settings.typed import read_word

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # in place of a page of usage
    known, unknown = parser.parse_known_intermixed_args(list(arguments))
    for flag in unknown:
        setting = flag.lstrip("-")
        hint = f"; settings are typed without --: {setting} (in a W&B sweep, ${{args_no_hyphens}})"
        raise ConfigError(f"there is no flag {flag.partition('=')[0]}{hint if '=' in flag else ''}")
    if known.multirun and (known.cfg or known.info):
        raise ConfigError("--cfg and --info show the settings of one run: leave out -m")
    if (known.package or known.resolve) and not known.cfg:
        raise ConfigError(f"{'--package' if known.package else '--resolve'} counts with --cfg alone: add --cfg job")
    flags, words = list(arguments), list(known.overrides)
    for word in words:
        flags.remove(word)
    own = [os.path.abspath(known.config_dir)] if known.config_dir else []
    return flags, [read_word(name_folders(word, known.multirun), known.multirun) for word in words], own, known.multirun


def _warn_of_repeats(words: Sequence[str]) -> None:
    """Say of a group that was chosen from more than once which choice counts."""
    from metarun.core.command import find_key
    from metarun.core.screen import Screen
    from metarun.settings.conf import GROUPS

    last = {key: word for word in words if (key := find_key(word)) in GROUPS}
    for word in words:
        if word != last.get(find_key(word), word):
            Screen().say(f"{word} does not count: {last[find_key(word)]} comes after it", "yellow")


def _hydra(arguments: Sequence[str]) -> int:
    """Compose the settings and run each job, and make Hydra's errors readable."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, instead of printing and exiting with 1
    warnings.filterwarnings("ignore", "provider=hydra.searchpath")  # which is an error of ours
    import hydra

    from metarun.app.sweeps import launch, listed
    from metarun.core.errors import ConfigError, Refused
    from metarun.core.launched import read_launched
    from metarun.settings import hydras, names, schema
    from metarun.settings.compose import explain_errors
    from metarun.settings.conf import CONF

    flags, words, own, sweep = _read(arguments)
    hydras.check_typed(words)
    typed = [*flags, *words]
    _warn_of_repeats(words)
    schema.register()
    names.register()
    launch.register(CONF)
    words = listed.take_list(words, sweep)
    arguments = [*flags, *words]
    codes: list[int] = []
    search = next((word for word in words if word.startswith("search=")), None)
    if search:
        from metarun.app.sweeps.search import check_search

        check_search(search, sweep)
    if sweep and os.environ.get("WANDB_SWEEP_ID"):
        raise ConfigError("under `wandb agent` a command is one run: leave out -m")
    if sweep and read_launched()[1] > 1:
        raise ConfigError("torchrun is for one run: leave out -m, or set run.processes instead of it")
    here = os.getpid()
    for line in hydras.find_idle_words(words, sweep):
        print(line)

    def job(config: Any) -> float | None:
        if not sweep:
            _announce(config, words)
        with tuning.frozen_imports():
            from metarun.app.jobs.composed import run_new

        if search:
            from metarun.app.sweeps.search import wait_for_others

            wait_for_others()
        try:
            with lasting_streams():  # of a process that a launcher made
                codes.append(run_new(config))
        except ConfigError as error:
            if sweep:
                raise
            raise Refused(str(error)) from error  # of which Hydra says nothing
        if codes[-1] > 128 and sweep:
            from metarun.run.interrupt import Interrupted, hand_on

            launched = os.getpid() != here
            if search and launched:  # a trial that did not come to its end is not to be told to the study
                raise Interrupted(codes[-1] - 128)
            hand_on(codes[-1] - 128, launched)
        if not sweep:
            return None
        from metarun.app.sweeps.search import read_objective

        return read_objective()

    sys.argv[1:] = arguments
    try:
        with explain_errors(words, own):
            main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
            if sweep:
                from metarun.app.sweeps.table import run_sweep

                return run_sweep(main, typed)
            main()
    except OSError as error:  # Hydra makes the output folder itself
        if error.filename is None:
            raise
        raise ConfigError(
            f"cannot write {error.filename}: {error.strerror}. Set paths.outputs=FOLDER or hydra.run.dir=FOLDER"
        ) from error
    except SystemExit as end:  # Hydra has said why
        return 2 if end.code else 0
    return max(codes, default=0)
