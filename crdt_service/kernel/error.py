"""The service's errors: each carries a stable code, what is wrong, and the remedy."""


class ServiceError(Exception):
    """An error that a user or operator can act on.

    Args:
        code: Stable snake_case name, part of the API.
        message: What is wrong and where.
        remedy: What to do about it.
    """

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})"


class ConfigError(ServiceError):
    """A configuration file, flag or secret that cannot be used."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("invalid_config", message, remedy)


class MalformedError(ServiceError):
    """Bytes from a peer or a file that break the format or its limits."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message, "check that both ends run compatible versions")


class OperationError(ServiceError):
    """An operation that the data type refuses; nothing was changed."""

    def __init__(self, message: str, remedy: str, code: str = "invalid_operation") -> None:
        super().__init__(code, message, remedy)


class StorageFullError(ServiceError):
    """The disk took no more; the write is not applied and reads go on."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "storage_full", f"no space left in {where}", "enlarge the volume or free space; reads still work"
        )


class CorruptDataError(ServiceError):
    """Stored bytes fail their checksum where no crash can explain it."""

    def __init__(self, where: str, offset_bytes: int) -> None:
        super().__init__(
            "corrupt_data",
            f"{where} is damaged at byte {offset_bytes}",
            "move the data directory away and restart the node; it refills from its peers",
        )


class UnreachableError(ServiceError):
    """A node could not be asked, so it surely did nothing."""

    def __init__(self, node_id: str) -> None:
        super().__init__("node_unreachable", f"node {node_id} is not reachable", "retry, or pick another node")


class OutcomeUnknownError(ServiceError):
    """A request was sent and its answer lost; it may or may not have been applied."""

    def __init__(self, node_id: str) -> None:
        super().__init__(
            "outcome_unknown",
            f"node {node_id} did not answer; the write may have been applied",
            "read the key before writing again",
        )


class AuthenticationError(ServiceError):
    """The other end does not hold the cluster's secret."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "authentication_failed",
            f"{where} does not prove the cluster secret",
            "give every process the same secret file",
        )


class StrangerError(ServiceError):
    """The other end is of another cluster, whatever secret it holds."""

    def __init__(self, where: str, cluster: str, own: str) -> None:
        super().__init__(
            "other_cluster",
            f"{where} is of the cluster {cluster!r}, this process of {own!r}",
            "check which addresses each cluster is told, or --cluster-name; clusters should not share a secret",
        )


class CertificateError(ServiceError):
    """TLS failed: a certificate is not trusted, has expired or names somebody else, or an end speaks no TLS."""

    def __init__(self, message: str) -> None:
        super().__init__(
            "certificate_refused",
            message,
            "give every process --tls-cert, --tls-key and --tls-ca of one authority; the other end's log may say more",
        )
