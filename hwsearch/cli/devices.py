"""`hwsearch devices`."""

from __future__ import annotations

from hwsearch.cli.options import JsonOption, print_result


def devices(as_json: JsonOption = False) -> None:
    """Show what can be timed on this machine, and why the rest can't."""
    from hwsearch.runtime.devices import list_devices

    reports = list_devices()
    lines = [
        f"{report.device:5} {report.runtime:13} "
        + (
            f"yes  {report.device_name} ({', '.join(report.precisions)})"
            if report.available
            else f"no   {report.reason}"
        )
        for report in reports
    ]
    print_result([report.model_dump() for report in reports], as_json=as_json, lines=lines)
