"""A worker process for the kill -9 trial: answers n requests through the ledger, then prints how many it has."""

import sys

import django


def main(slug: str, count: int) -> None:
    django.setup()
    from pld_app.model_edge.ledger import recorded_calls
    from pld_app.models import ModelEndpoint
    from tests.model_edge.harness import chat, never

    endpoint = ModelEndpoint.objects.get(slug=slug)
    requests = (chat(f"t-{n}", schema=True) for n in range(count))
    answers = [call.ok for call in recorded_calls(endpoint, requests, scope="", should_stop=never)]
    print(sum(answers))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
