"""deploy/kubernetes against the schemas that Kubernetes publishes, with the labels that kustomize puts in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.requires import requires

DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"
pytestmark = requires("kubernetes_validate")


def labelled(name: str) -> dict[str, Any]:
    """The manifest as `kubectl kustomize` prints it: the pairs in every metadata and every selector."""
    import yaml  # comes with kubernetes-validate, which may be missing

    manifest: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    pairs = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["labels"][0]["pairs"]
    spec = manifest["spec"]
    manifest["metadata"]["labels"] = pairs
    if manifest["kind"] == "Deployment":
        spec["selector"]["matchLabels"] = spec["template"]["metadata"]["labels"] = pairs
    elif manifest["kind"] == "Service":
        spec["selector"] = pairs
    else:
        spec["podSelector"]["matchLabels"] = pairs
    return manifest


@pytest.mark.parametrize("name", ["deployment.yaml", "service.yaml", "networkpolicy.yaml"])
def test_a_manifest_is_what_kubernetes_takes(name: str) -> None:
    import kubernetes_validate

    assert name in (DEPLOY / "kustomization.yaml").read_text()
    manifest = labelled(name)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    manifest["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
