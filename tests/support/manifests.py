"""Kubernetes manifests on standard input, as a JSON array on standard output; each of a kind that
Kubernetes itself has is checked strictly against that version's schema: manifests.py VERSION
"""

import json
import sys

import kubernetes_validate
import yaml

documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
for document in documents:
    # The Prometheus operator's own kinds.
    if not document["apiVersion"].startswith("monitoring.coreos.com/"):
        try:
            kubernetes_validate.validate(document, sys.argv[1], strict=True)
        except Exception as problem:
            sys.exit(f"{document['kind']} {document['metadata']['name']}: {getattr(problem, 'message', problem)}")
print(json.dumps(documents))
