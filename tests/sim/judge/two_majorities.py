"""Never could two sets of owners without a common one both acknowledge: one document for each number, each decided."""


def find(history):
    findings = history.placements.findings
    return findings[0] if findings else None
