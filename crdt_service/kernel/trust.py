"""Which certificates of a given file are trusted."""

import ssl


def trust_any(context: ssl.SSLContext) -> None:
    """Take each authority that a context was given as an anchor, an intermediate one without its root, too.

    OpenSSL otherwise asks for a chain up to a certificate that signed itself, which issuers do not always hand out:
    what was given is what is trusted, as in Go and Java, and as Python has it from 3.13 on (RFC 5280, section 6.1).
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
