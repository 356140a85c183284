class Mean:
    """The mean voltage so far, with the variance of its error."""
    state_names = ["v_mean"]

    def __init__(self):
        self.n, self.mean, self.squares = 0, 0.0, 0.0

    def step(self, inputs, outputs):
        self.n += 1
        error = outputs.terminal_voltage - self.mean
        self.mean += error / self.n
        self.squares += error * (outputs.terminal_voltage - self.mean)

    @property
    def state(self):
        return self

    def get_mean(self):
        return [self.mean]

    def get_covariance(self):
        return [[self.squares / max(self.n, 1) ** 2]]


estimator = Mean()
