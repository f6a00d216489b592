"""A job's one line in the log."""

import structlog

from network.identity import checksum
from node.jobs.model import JobReport

log = structlog.get_logger(__name__)


def log_job(report: JobReport) -> None:
    """Write the line. It holds no prompt: a job of accounting has none."""
    job, ending = report.job, report.ending
    log.info(
        "job",
        outcome=ending.outcome.value,
        reason=ending.reason or None,
        job_id=job.job_id,
        attempt_id=job.attempt_id,
        payer=checksum(job.payer),
        model=job.model_id,
        size=f"{job.width}x{job.height}",
        images=job.images,
        steps=job.steps,
        pixels=job.pixels,
        charged_wei=str(report.charged),
        wait_ms=round(ending.waited_seconds * 1000),
        run_ms=round(ending.run_seconds * 1000),
    )
