"""Uploads are cut off at the size limit while they arrive, so that a huge file costs neither memory nor disk."""

from typing import IO, NoReturn

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile

TOO_LARGE = "pld.upload_too_large"
_FORM_BYTES = 1024 * 1024  # room for the other fields and the frame of a form that holds a file of the limit


class LimitUploadHandler(FileUploadHandler):
    """Stands first in FILE_UPLOAD_HANDLERS; marks the request when its files pass the limit and drops them.

    Files of strangers are dropped too: no page takes one, and they must not fill the disk.
    """

    received = 0
    refused = False

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: dict[str, str],  # noqa: N803  # Django's name
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> None:
        # The length stated is never passed, so that what is too long by it need not be kept at all.
        self.refused = content_length > settings.IMPORT_MAX_BYTES + _FORM_BYTES

    def new_file(self, *args: object, **kwargs: object) -> None:
        super().new_file(*args, **kwargs)  # type: ignore[arg-type]  # passed through as given
        user = getattr(self.request, "user", None)
        if user is None or not user.is_authenticated:
            raise SkipFile
        if self.refused:
            self._refuse()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self.received += len(raw_data)
        if self.received > settings.IMPORT_MAX_BYTES:
            self._refuse()
        return raw_data

    def file_complete(self, file_size: int) -> "UploadedFile[bytes] | None":
        return None

    def _refuse(self) -> NoReturn:
        if self.request is not None:
            self.request.META[TOO_LARGE] = True
        raise SkipFile
