"""One object of each kind and a browser for each person, as the permission test lays them out."""

from tests import test_permissions

scene = test_permissions.scene
