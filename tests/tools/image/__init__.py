"""The image of docker/Dockerfile built and run for real, without a container engine or an image registry."""
