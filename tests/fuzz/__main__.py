"""Fuzz every decoder: `python -m tests.fuzz --runs 20000`; a failing input is kept, and `--replay FILE` runs it alone.

Coverage leads the way by atheris where there is a wheel of it; elsewhere inputs are changed blindly.
"""

import argparse
import hashlib
import random
import sys
import tempfile
from pathlib import Path

INPUT_BYTES_MAX = 4096
MEMORY_MEGABYTES_MAX = 2048
_FAILURES = Path(".fuzz")
try:
    import atheris
except ImportError:
    atheris = None


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--runs", type=int, default=20_000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=1, help="what the changes are drawn from")
    parser.add_argument("--replay", type=Path, help="an input to run alone")
    options = parser.parse_args()
    if options.replay:
        from tests.fuzz.target import run  # noqa: PLC0415

        run(options.replay.read_bytes())
        print("the input is handled")
    elif atheris:
        _fuzz_covered(options.runs, options.seed)
    else:
        _fuzz_blindly(options.runs, options.seed)


def _fuzz_covered(runs: int, seed: int) -> None:
    with atheris.instrument_imports(include=["crdt_service"]):
        from tests.fuzz.corpus import make_corpus  # noqa: PLC0415

    _FAILURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for data in make_corpus():
            Path(scratch, hashlib.sha256(data).hexdigest()).write_bytes(data)
        arguments = {
            "runs": runs,
            "seed": seed,
            "max_len": INPUT_BYTES_MAX,
            "rss_limit_mb": MEMORY_MEGABYTES_MAX,
            "artifact_prefix": f"{_FAILURES}/",
            "print_final_stats": 1,
            "verbosity": 0,
        }
        atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in arguments.items()), scratch], _run)
        atheris.Fuzz()


def _fuzz_blindly(runs: int, seed: int) -> None:
    from tests.fuzz.corpus import make_corpus  # noqa: PLC0415

    corpus, randomness = make_corpus(), random.Random(seed)
    for _ in range(runs):
        data = bytearray(randomness.choice(corpus))
        for _ in range(randomness.choice((1, 1, 2, 4, 8))):
            at = randomness.randrange(len(data) + 1)
            size = randomness.randrange(4)
            data[at : at + size] = randomness.choice((randomness.randbytes(size), b"", data[at : at + 9], b"\xff" * 9))
        _run(bytes(data[:INPUT_BYTES_MAX]))
    print(f"{runs} inputs are handled")


def _run(data: bytes) -> None:
    from tests.fuzz.target import run  # noqa: PLC0415

    try:
        run(data)
    except BaseException:
        _FAILURES.mkdir(exist_ok=True)
        path = _FAILURES / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
        path.write_bytes(data)
        print(f"\nfailed; replay with: make fuzz REPLAY={path}", flush=True)
        raise


if __name__ == "__main__":
    main()
