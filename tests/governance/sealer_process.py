"""Rounds of the sealer, each in a process of its own that is killed (SIGKILL) at its Nth step, or runs to its end.

Reads N from each line of its input, forks, and answers with what became of the child: minus the signal, or how many
steps a whole round has. A step is any SQL statement or commit, counted before it is sent and again when it is answered,
and any file opened, linked or removed: what can be counted from outside, our own code unchanged.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django


def seal_until(fatal: int) -> int:
    """Seal once, killed at step `fatal`; returns how many steps there were."""
    from django.db import connection  # after setup

    from pld_app.transparency.copies import sinks_configured
    from pld_app.transparency.rounds import seal_round

    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(execute: Callable[..., Any], *arguments: Any) -> Any:
        step()
        answer = execute(*arguments)
        step()
        return answer

    connection.ensure_connection()
    driver: Any = connection.connection

    def counted(plain: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            step()
            plain()
            step()

        return run

    driver.commit, driver.rollback = counted(driver.commit), counted(driver.rollback)
    sys.addaudithook(lambda event, _arguments: step() if event in {"os.link", "os.remove", "open"} else None)
    with connection.execute_wrapper(statement):
        seal_round(sinks_configured())
    return steps


def main() -> None:
    django.setup()
    for line in sys.stdin:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, str(seal_until(int(line))).encode())
            os._exit(0)
        os.close(tell)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code or os.read(told, 20).decode(), flush=True)  # noqa: T201  # the answer
        os.close(told)


if __name__ == "__main__":
    main()
