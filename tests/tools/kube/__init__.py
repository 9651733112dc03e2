"""A Job's life as Kubernetes' own Job controller decides it: without a cluster, and without containers."""
