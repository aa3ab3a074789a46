"""An endpoint that an administrator points inwards: every spelling of an inner address is the inner address."""

import pytest

from pld_app.model_edge import AddressRefusedError
from pld_app.model_edge.addresses import check_address


@pytest.mark.parametrize(
    "address",
    [
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "168.63.129.16",
        "fd20:ce::254",
        "ff02::1",
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_metadata_services_are_never_reached_in_any_spelling(address: str, allow_private: bool) -> None:
    with pytest.raises(AddressRefusedError, match="never allowed"):
        check_address(address, scheme="https", allow_private=allow_private)


@pytest.mark.parametrize(
    "address",
    ["::127.0.0.1", "::ffff:0:127.0.0.1", "::10.0.0.1", "fec0::1", "4000::1", "5f00::1", "64:ff9b:1::a00:1", "::1"],
)
def test_what_is_not_the_internet_needs_permission(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="private addresses are not allowed"):
        check_address(address, scheme="https", allow_private=False)


@pytest.mark.parametrize("address", ["2606:4700:4700::1111", "93.184.216.34", "64:ff9b::93.184.216.34"])
def test_the_internet_is_reached_by_tls(address: str) -> None:
    check_address(address, scheme="https", allow_private=False)
    with pytest.raises(AddressRefusedError, match="in the clear"):
        check_address(address, scheme="http", allow_private=True)
