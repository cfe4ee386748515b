import torch

from saepd.common.versions import PACKAGES, package_versions


def test_versions_are_those_that_run():
    found = package_versions()
    assert tuple(found) == PACKAGES
    assert torch.__version__.startswith(found["torch"].split("+")[0])
