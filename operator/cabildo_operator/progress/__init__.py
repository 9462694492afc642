"""What trainers report to: the HTTPS endpoint, who may report, and the latest reports.

Nothing here writes to the API server; a report wakes the object's key and the next plan puts
it into the status.
"""
