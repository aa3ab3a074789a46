"""Asks the web server whether it is well: used by the demo's start and by container health checks.

`python -m pld_app.devstack.probe http://127.0.0.1:8000/healthz` ends with 0 when the answer is 200.
"""

import http.client
import os
import sys
import urllib.error
import urllib.request

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a loopback address needs no proxy


def http_status(url: str, *, host: str | None = None, seconds: float = 5.0) -> int | None:
    """The status of a GET, whatever it is; None when no answer comes. `host` replaces the Host header."""
    request = urllib.request.Request(url, headers={"Host": host} if host else {})  # noqa: S310  # our own URLs
    try:
        with _OPENER.open(request, timeout=seconds) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def main(arguments: list[str]) -> int:
    # Django refuses an unknown Host, so ask under a name it serves.
    names = [name.strip() for name in os.environ.get("PLD_ALLOWED_HOSTS", "").split(",")]
    host = next((name.lstrip(".") for name in names if name and name != "*"), None)
    status = http_status(arguments[0], host=host)
    print(f"{arguments[0]}: {status or 'no answer'}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
