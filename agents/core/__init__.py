"""What the algorithms share: protocol, runner, controller, returns, baselines."""
