"""What the fork server of `trainer_ranks` imports once for all ranks."""

import cabildo_trainer.session  # noqa: F401 - imported for its effect
