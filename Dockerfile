# syntax=docker/dockerfile:1
# The product without its demo and test packages. Runs as an unprivileged account on a read-only file system:
# it writes only to /srv/media (uploads), /tmp and /dev/shm.

FROM python:3.13-slim AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/venv
RUN pip install --no-cache-dir "uv>=0.9"
WORKDIR /srv/app
COPY pyproject.toml uv.lock .python-version ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-default-groups
COPY manage.py ./
COPY pld_app pld_app
COPY rules rules
COPY evaluation evaluation
COPY templates templates
COPY static static
COPY locale locale
# Collecting opens no connection, but settings insist on being complete: these values stay in this line.
RUN PLD_SECRET_KEY="$(python -c 'import secrets; print(secrets.token_urlsafe(48))')" \
    DATABASE_URL=postgresql://nobody@build.invalid/none REDIS_URL=redis://build.invalid/0 \
    /opt/venv/bin/python manage.py collectstatic --noinput && \
    /opt/venv/bin/python -m compileall -q manage.py pld_app rules evaluation

FROM python:3.13-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=pld_app.settings
RUN groupadd --gid 10001 pld && useradd --uid 10001 --gid pld --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pld \
    && install --directory --owner=pld --group=pld --mode=0750 /srv/media /srv/audit-copies \
    && install --directory --owner=pld --group=pld --mode=0700 /srv/audit-key
WORKDIR /srv/app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv/app /srv/app
USER 10001:10001
VOLUME /srv/media
EXPOSE 8000
CMD ["gunicorn", "pld_app.wsgi:application", "--bind=0.0.0.0:8000", "--worker-class=gthread", "--threads=8", \
     "--timeout=60", "--graceful-timeout=20", "--max-requests=10000", "--max-requests-jitter=1000", \
     "--worker-tmp-dir=/dev/shm", "--no-control-socket"]
