"""A worker process for the kill -9 trial: executes one job against the database it is given."""

import sys

import django


def main(job_id: int) -> None:
    django.setup()
    from pld_app.jobs import job_execute

    job_execute(job_id=job_id)


if __name__ == "__main__":
    main(int(sys.argv[1]))
