"""What is cached and under which key: the policy, the version of the code, the locks."""
