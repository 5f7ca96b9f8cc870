def measure(run, probe, rollouts):
    raise NotImplementedError
