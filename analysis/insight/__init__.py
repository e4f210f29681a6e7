"""What a run's experts and routers learnt, beyond the paper's figures."""
