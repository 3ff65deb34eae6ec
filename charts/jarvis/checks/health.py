"""`helm test`: the API says that the cluster is healthy. Arguments: its URL, and the authority's file or ""."""

import json
import ssl
import sys
import urllib.request

url, authority = sys.argv[1:]
trust = ssl.create_default_context(cafile=authority) if authority else None
if trust is not None:
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # The authority may be an intermediate one.
with urllib.request.urlopen(f"{url}/health", timeout=10, context=trust) as answer:
    health = json.load(answer)
print(json.dumps(health, indent=2))
sys.exit(health["status"] != "healthy")
