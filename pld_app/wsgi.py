"""The WSGI entry of the web server."""

import gc
import os

from django.core.wsgi import get_wsgi_application

from pld_app.transparency.key_file import refuse_private_key

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pld_app.settings")

application = get_wsgi_application()
refuse_private_key()
# What is loaded by now lives as long as the process: a collection that walks through all of it stops every request and
# frees nothing. Pages make thousands of short-lived objects, so the young are looked through less often, too.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 20)
