"""Can this network learn one patch? Its training, its cap, its gradients."""
