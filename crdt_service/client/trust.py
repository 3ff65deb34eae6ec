"""Which certificates of those that are given are trusted."""

import ssl


def trust_any(context: ssl.SSLContext) -> ssl.SSLContext:
    """Take each authority that a context was given as an anchor, an intermediate one without its root, too; return it.

    What was given is what is trusted, as in Go and Java, and as Python has it from 3.13 on.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
