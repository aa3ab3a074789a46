"""Settings, all from the environment; no secret has a usable default. `.env.example` explains each variable."""

import os
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import django_stubs_ext
from django.core.exceptions import ImproperlyConfigured
from django.utils.csp import CSP

# Forms may name their model at run time too (forms.ModelForm[User]).
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(f"Set the environment variable {name} (see .env.example).")
    return value


def _flag(name: str, default: bool = False) -> bool:
    return os.environ.get(name, "1" if default else "0").lower() in {"1", "true", "yes", "on"}


def _list(name: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def _database(url: str) -> dict[str, object]:
    """Django's database settings from postgresql://user:password@host:port/name (or ?host=/socket/dir&port=)."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured("DATABASE_URL must start with postgresql://: Postgres is the only engine.")
    query = parse_qs(parts.query)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query["host"][0] if "host" in query else (parts.hostname or ""),
        "PORT": query["port"][0] if "port" in query else str(parts.port or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        # A writer that hangs must not hold row locks (and later the audit seal) for ever.
        "OPTIONS": {
            "options": "-c idle_in_transaction_session_timeout=30000 -c lock_timeout=10000",
            # A statement asked five times on a connection is planned no more: a card's own took 4 of its 5 ms to plan.
            "server_side_binding": True,
            "prepare_threshold": 5,
        },
    }


SECRET_KEY = _required("PLD_SECRET_KEY")
DEBUG = _flag("PLD_DEBUG")
HTTPS = _flag("PLD_HTTPS", default=not DEBUG)
BEHIND_PROXY = _flag("PLD_BEHIND_PROXY")
ALLOWED_HOSTS = _list("PLD_ALLOWED_HOSTS") or ["127.0.0.1", "localhost"]
CSRF_TRUSTED_ORIGINS = _list("PLD_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "django_htmx",
    "pld_app.apps.PldAppConfig",
    "rules.apps.RulesConfig",
    "evaluation.apps.EvaluationConfig",
]
MIDDLEWARE = [
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "pld_app.middleware.EdgeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "pld_app.middleware.SessionSeenMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "pld_app.middleware.RequestIdMiddleware",
    "pld_app.middleware.RefusalMiddleware",
]
ROOT_URLCONF = "pld_app.urls"
WSGI_APPLICATION = "pld_app.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "pld_app.context.page",
                "rules.context.stops",
            ],
        },
    }
]

# Only these commands change tables: they sign in as the migrator, who acts as the owner of everything.
MIGRATOR_DATABASE_URL = os.environ.get("PLD_MIGRATOR_DATABASE_URL", "")
_AS_OWNER = bool(MIGRATOR_DATABASE_URL) and sys.argv[1:2] in (["migrate"], ["database_roles"])
# The sealer and what changes its key sign in as a role of their own, which alone may write the seal.
SEALER_DATABASE_URL = os.environ.get("PLD_SEALER_DATABASE_URL", "")
_AS_SEALER = bool(SEALER_DATABASE_URL) and sys.argv[1:2] in (["audit_sealer"], ["audit_key"], ["audit_alarm"])
_URL = MIGRATOR_DATABASE_URL if _AS_OWNER else SEALER_DATABASE_URL if _AS_SEALER else _required("DATABASE_URL")
DATABASES = {"default": _database(_URL)}
if _AS_OWNER:
    DATABASES["default"]["OPTIONS"] |= {"assume_role": "pld_owner"}  # type: ignore[operator]  # the dict made above
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = _required("REDIS_URL")

AUTH_USER_MODEL = "pld_app.User"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
# Each in its own words: who looks for a language may not read the present one.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = Path(os.environ.get("PLD_STATIC_ROOT", BASE_DIR / "staticfiles"))
STATICFILES_DIRS = [BASE_DIR / "static"]
# Hashed names once files are collected, and while they are; the demo and the tests serve straight from static/.
_COLLECTED = not DEBUG and ((STATIC_ROOT / "staticfiles.json").exists() or "collectstatic" in sys.argv)
_STATIC_BACKEND = (
    "whitenoise.storage.CompressedManifestStaticFilesStorage"
    if _COLLECTED
    else "django.contrib.staticfiles.storage.StaticFilesStorage"
)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": _STATIC_BACKEND},
}
WHITENOISE_USE_FINDERS = not _COLLECTED
MEDIA_ROOT = Path(os.environ.get("PLD_MEDIA_ROOT", BASE_DIR / ".dev" / "media"))
FILE_UPLOAD_HANDLERS = [
    "pld_app.uploads.LimitUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

IMPORT_MAX_BYTES = int(os.environ.get("PLD_IMPORT_MAX_BYTES", str(100 * 1024 * 1024)))
IMPORT_MAX_ROWS = int(os.environ.get("PLD_IMPORT_MAX_ROWS", "200000"))

ENDPOINT_ALLOW_PRIVATE = _list("PLD_ENDPOINT_ALLOW_PRIVATE")
# How often a provider is asked how far a batch is, and how much one batch may hold (OpenAI: 50,000 and 200 MB).
BATCH_POLL_S = float(os.environ.get("PLD_BATCH_POLL_S", "60"))
BATCH_MAX_REQUESTS = int(os.environ.get("PLD_BATCH_MAX_REQUESTS", "50000"))
BATCH_MAX_BYTES = int(os.environ.get("PLD_BATCH_MAX_BYTES", "200000000"))
ENDPOINT_BREAKER_S = float(os.environ.get("PLD_ENDPOINT_BREAKER_S", "30"))

# Security headers. Nothing inline, nothing from elsewhere.
SECURE_CSP = {
    "default-src": [CSP.SELF],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
    "form-action": [CSP.SELF],
}
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_ENGINE = "pld_app.session_store"
SESSION_IDLE_S = int(os.environ.get("PLD_SESSION_IDLE_S", "1800"))
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
if HTTPS:
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = True
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None

# How long a reviewer keeps an instruction without a sign of life; the database takes an hour at most.
REVIEW_LEASE_S = min(float(os.environ.get("PLD_REVIEW_LEASE_S", "600")), 3_600)
# How people prove who they are. Keys that encrypt the secrets of authenticator apps: the first encrypts, all decrypt.
SITE_NAME = os.environ.get("PLD_SITE_NAME", "PLD Review")
FACTOR_KEYS = _list("PLD_FACTOR_KEYS")
# Passkeys belong to a host name; empty, the one of the request counts.
PASSKEY_RP_ID = os.environ.get("PLD_WEBAUTHN_RP_ID", "")
PASSKEY_ORIGIN = os.environ.get("PLD_WEBAUTHN_ORIGIN", "")

# Single sign-on with an OpenID Connect provider; without issuer and client id there is none.
OIDC_ISSUER = os.environ.get("PLD_OIDC_ISSUER", "")
OIDC_CLIENT_ID = os.environ.get("PLD_OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = os.environ.get("PLD_OIDC_CLIENT_SECRET", "")
OIDC_DOMAINS = [domain.lower() for domain in _list("PLD_OIDC_DOMAINS")]
OIDC_USERNAME_CLAIM = os.environ.get("PLD_OIDC_USERNAME_CLAIM", "preferred_username")

# Mail: without a server nothing is sent, and the inbox holds every message.
PUBLIC_URL = os.environ.get("PLD_PUBLIC_URL", "").rstrip("/")
SMTP_HOST = os.environ.get("PLD_SMTP_HOST", "")
MAIL_CONFIGURED = bool(SMTP_HOST and PUBLIC_URL)
_SMTP = {
    "host": SMTP_HOST,
    "port": int(os.environ.get("PLD_SMTP_PORT", "587")),
    "username": os.environ.get("PLD_SMTP_USER", ""),
    "password": os.environ.get("PLD_SMTP_PASSWORD", ""),
    "use_tls": _flag("PLD_SMTP_STARTTLS", default=True),
    "timeout": 20,
}
MAILERS = {
    "default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": _SMTP}
    if MAIL_CONFIGURED
    else {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
}
DEFAULT_FROM_EMAIL = SERVER_EMAIL = os.environ.get("PLD_MAIL_FROM", "pld-review@localhost")
MAIL_DOMAIN = DEFAULT_FROM_EMAIL.rpartition("@")[2].strip(">") or "localhost"

# The seal of the audit log. The key file is named to the sealer alone; where copies go, too.
AUDIT_KEY_FILE = os.environ.get("PLD_AUDIT_KEY_FILE", "")
AUDIT_SEAL_S = float(os.environ.get("PLD_AUDIT_SEAL_S", "10"))
AUDIT_COPY_DIR = os.environ.get("PLD_AUDIT_COPY_DIR", "")
AUDIT_COPY_URL = os.environ.get("PLD_AUDIT_COPY_URL", "")
AUDIT_COPY_TOKEN = os.environ.get("PLD_AUDIT_COPY_TOKEN", "")

JOB_LEASE_S = float(os.environ.get("PLD_JOB_LEASE_S", "30"))

# Celery: lessons measured for this project; Postgres holds the work, so a lost message costs only delay.
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_TASK_ACKS_ON_FAILURE = True
CELERY_TASK_ACKS_ON_TIMEOUT = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SOFT_TIME_LIMIT = 290
CELERY_TASK_TIME_LIMIT = 300
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 200
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 8
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = True
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 900,
    # A hint is tried once: kombu would else keep a web request waiting for seconds. The sweeper tries again.
    "max_retries": 0,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
CELERY_BEAT_SCHEDULE = {
    "sweep-jobs": {"task": "pld_app.tasks.jobs_sweep", "schedule": 5.0, "options": {"expires": 5}},
    "apply-roles": {"task": "pld_app.tasks.roles_apply", "schedule": 60.0, "options": {"expires": 60}},
    "follow-tasks": {"task": "evaluation.tasks.tasks_follow", "schedule": 60.0, "options": {"expires": 60}},
    # It finds what is due for itself, so the hour does not matter and a missed one loses nothing.
    "oversight": {"task": "rules.tasks.oversight_due", "schedule": 3600.0, "options": {"expires": 3600}},
    # Asked each hour and done once a day: a beat that was away at midnight misses no day.
    "prune": {"task": "rules.tasks.prune", "schedule": 3600.0, "options": {"expires": 3600}},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        # One JSON object per line: control characters in logged text arrive escaped.
        "json": {"()": "pld_app.logs.json_formatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("PLD_LOG_LEVEL", "INFO")},
}
