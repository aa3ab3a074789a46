"""The WSGI entry of the web server."""

import os

from django.core.wsgi import get_wsgi_application

from pld_app.transparency.key_file import refuse_private_key

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pld_app.settings")

application = get_wsgi_application()
refuse_private_key()
