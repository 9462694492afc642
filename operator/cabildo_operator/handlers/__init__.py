"""kopf, and nothing but kopf: TrainingJobs come in, probes are answered.

No other package imports kopf. Handlers are a few lines each and hold no logic: what comes in goes
into a store and its key into the work queue. docs/decisions say why kopf does no more than that.
"""
