"""python -m tinygrad_zen train|gradcheck|kernels|doctor: the command line."""

import argparse
import sys
import time

USAGE = """\
usage: python -m tinygrad_zen COMMAND [options]

commands:
  train [NAME] [options]   train one of the programs below (digits if none is named)
  gradcheck [options]      check every op's gradient against finite differences
  kernels [options]        which kernel runs on which backend, and the ladders of the hot ones
  doctor                   what this machine offers, what is wrong with it, and the repair
  --version                print the version

programs:
{recipes}

`python -m tinygrad_zen train NAME --help` lists the options of a program.
"""


def main(argv=None):
    """Run a command; -> the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv.pop(0) if argv else None
    if command in (None, "-h", "--help", "help"):
        print(usage(), end="")
        return 0 if command else 2
    if command == "--version":
        from importlib.metadata import version

        print(f"tinygrad_zen {version('tinygrad-zen')}")
        return 0
    if command not in COMMANDS:
        return fail(f"unknown command {command!r}: choose from {', '.join(COMMANDS)}", code=2)
    return COMMANDS[command](argv)


def usage():
    from .recipes import RECIPES

    width = max(map(len, RECIPES))
    return USAGE.format(
        recipes="\n".join(f"  {name:{width}}   {line}" for name, line in RECIPES.items())
    )


def train(argv):
    """Train a recipe: [NAME] [options]."""
    from . import recipes
    from .backend import BackendUnavailable, OutOfMemory

    if argv and argv[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    name = argv.pop(0) if argv and not argv[0].startswith("-") else "digits"
    if name not in recipes.RECIPES:
        return fail(f"unknown program {name!r}: choose from {', '.join(recipes.RECIPES)}", code=2)
    recipe = recipes.find(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m tinygrad_zen train {name}",
        description=recipe.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipe.add_arguments(parser)
    args = parser.parse_args(argv)
    of_the_engine = BackendUnavailable, OutOfMemory
    started = time.time()
    try:
        recipes.run(recipe, args)
    except KeyboardInterrupt as e:
        again = recipes.how_to_go_on(name, argv, args, started)
        return fail((str(e) or "interrupted") + again, code=130)
    except (ValueError, FloatingPointError, ImportError, OSError, *of_the_engine) as e:
        return fail(str(e))
    return 0


def gradcheck(argv):
    """Check the gradients of the ops: options as check.table says."""
    from .check.table import main as check

    return check(argv)


def kernels(argv):
    """Show the kernels of each backend: options as check.ladders says."""
    from .check.ladders import main as show

    return show(argv)


def doctor(argv):
    """Examine the machine and its libraries."""
    from .check.doctor import main as examine

    return examine(argv)


def fail(message, code=1):
    """Say in one line what went wrong; -> the exit code."""
    print(f"tinygrad_zen: {message}", file=sys.stderr)
    return code


COMMANDS = {"train": train, "gradcheck": gradcheck, "kernels": kernels, "doctor": doctor}

if __name__ == "__main__":
    sys.exit(main())
