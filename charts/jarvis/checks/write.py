"""`helm test`: a key is written to a majority of its owners, read from a majority, and deleted.

Arguments: the API's URL, the authority's file or "", the file of an API key's token or "".
"""

import json
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ATTEMPTS = 10
BUSY = {429, 503}

url, authority, token = sys.argv[1:]
trust = ssl.create_default_context(cafile=authority) if authority else None
if trust is not None:
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # The authority may be an intermediate one.
headers = {}
if token:
    try:
        headers["Authorization"] = f"Bearer {Path(token).read_text(encoding='ascii').strip()}"
    except OSError as error:
        sys.exit(f"no API key: {error}; its Secret must hold one of scope write (docs/security.md, The first key)")
# Nobody else's key: two tests may run at once.
path = f"/v1/keys/helm-test%2F{secrets.token_hex(8)}"


def ask(method, path, body=None):
    """Return status and body. Every request here may be sent twice, so one that failed or came amid too many is."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)
    left = ATTEMPTS
    while True:
        left -= 1
        try:
            with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in BUSY or not left:
                return error.code, json.load(error)
        except OSError as error:
            if not left:
                sys.exit(f"{method} {url}{path}: {error}")
        time.sleep(1)


def expect(status, method, path, body=None):
    """Return the body of an answer with this status; any other ends the test."""
    seen, answer = ask(method, path, body)
    print(method, path, seen, flush=True)
    if seen != status:
        sys.exit(f"expected {status}: {json.dumps(answer)}")
    return answer


value = secrets.token_hex(8)
try:
    expect(200, "POST", f"{path}?concern=majority", {"type": "lww_register", "op": {"assign": value}})
    read = expect(200, "GET", f"{path}?concern=majority")["value"]
    if read != value:
        sys.exit(f"wrote {value}, read {read}")
finally:
    deleted = ask("DELETE", f"{path}?concern=majority")
if deleted[0] != 200:
    sys.exit(f"not deleted: {json.dumps(deleted[1])}")
expect(404, "GET", f"{path}?concern=majority")
print("written, read and deleted")
